"""Threads that compute on one core each, for work that comes in many independent pieces.

PyTorch's own threads share every single product and wait for each other at its end; where other programs want the
cores as well, most of the time is lost in that waiting. Whole products side by side have nothing to wait for.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from types import TracebackType
from typing import TypeVar

import torch

A = TypeVar("A")
R = TypeVar("R")


class Workers:
    """A pool of threads in which PyTorch computes on one core; a context manager.

    Args:
        count: number of threads; with 1 all is done in the caller's thread.
    """

    def __init__(self, count: int) -> None:
        self.count = max(count, 1)
        self._pool = self._start() if self.count > 1 else None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[A], R], items: Iterable[A]) -> Iterator[R]:
        """``function`` of each item, in order; no more than twice ``count`` results wait to be read."""
        if self._pool is None:
            yield from map(function, items)
            return
        ahead: deque[Future[R]] = deque()
        for item in items:
            ahead.append(self._pool.submit(function, item))
            if len(ahead) >= 2 * self.count:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def _start(self) -> ThreadPoolExecutor:
        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(self.count, thread_name_prefix="selfsame", initializer=_use_one_core)
        # Each thread of the pool has to start, hence the barrier. The number is the calling thread's, but PyTorch gives
        # the last one set to threads that first use it later, so it is put back at once.
        barrier = Barrier(self.count)
        for started in [pool.submit(barrier.wait) for _ in range(self.count)]:
            started.result()
        torch.set_num_threads(threads)
        return pool


def _use_one_core() -> None:
    # The first question of a thread makes PyTorch give it the number that was set last; only then is it ours to set.
    torch.get_num_threads()
    torch.set_num_threads(1)
