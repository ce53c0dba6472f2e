"""The bounded queues on either side of the device: decode threads before it, a database writer behind it."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

_TICK_SECONDS = 0.2


class DecodePool:
    """Decodes items in threads, a bounded number ahead of the consumer.

    Iterating gives ``(item, result or exception)`` in order of completion, and None every fifth of a second in which
    nothing was completed.

    Args:
        items: iterated in a thread of its own (it may wait for the database).
        decode: called in worker threads.
        num_workers: number of decode threads.
        ahead: decoded items that may wait for the consumer; bounds the memory.
    """

    def __init__(self, items: Iterable[Any], decode: Callable[[Any], Any], num_workers: int, ahead: int) -> None:
        self._items = items
        self._decode = decode
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="selfsame-decode")
        self._slots = threading.Semaphore(ahead + num_workers)
        self._stop = threading.Event()
        self._finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._feeder = threading.Thread(target=self._feed, name="selfsame-feed", daemon=True)

    def __enter__(self) -> "DecodePool":
        self._feeder.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._feeder.join()
        self._pool.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[tuple[Any, Any] | None]:
        while True:
            try:
                outcome = self._finished.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                yield None
                continue
            if isinstance(outcome, _End):
                if outcome.error is not None:
                    raise outcome.error
                return
            self._slots.release()
            yield outcome

    def _feed(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._items:
                while not self._slots.acquire(timeout=_TICK_SECONDS):
                    if self._stop.is_set():
                        return
                if self._stop.is_set():
                    return
                self._pool.submit(self._work, item)
            # All results must be in the queue before the end mark is.
            self._pool.shutdown(wait=True)
        except BaseException as caught:
            error = caught
        self._finished.put(_End(error))

    def _work(self, item: Any) -> None:
        try:
            outcome = self._decode(item)
        except Exception as error:
            outcome = error
        self._finished.put((item, outcome))


class BackgroundWriter:
    """Collects rows and commits them in a thread of its own; leaving the ``with`` block commits the rest.

    Args:
        commit: writes a list of rows.
        every: rows per commit.
        seconds: a commit also happens when the oldest row has waited this long.
    """

    def __init__(self, commit: Callable[[list[Any]], None], every: int, seconds: float) -> None:
        self._commit = commit
        self._every = every
        self._seconds = seconds
        # Two commits' worth may wait: if the database is slower than the device for long, memory stays bounded.
        self._rows: queue.Queue[Any] = queue.Queue(2 * every)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="selfsame-writer", daemon=True)

    def __enter__(self) -> "BackgroundWriter":
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._rows.put(_End())
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def put(self, row: Any) -> None:
        """Hands over a row; raises the error of an earlier commit if there was one."""
        if self._error is not None:
            raise self._error
        self._rows.put(row)

    def _work(self) -> None:
        ended = False
        while not ended:
            rows, ended = self._collect()
            if rows and self._error is None:
                try:
                    self._commit(rows)
                except BaseException as error:
                    # Later rows are still taken from the queue, so that nobody waits for a dead thread.
                    self._error = error

    def _collect(self) -> tuple[list[Any], bool]:
        """The rows of the next commit, and whether they are the last."""
        rows = [self._rows.get()]
        deadline = time.monotonic() + self._seconds
        while not isinstance(rows[-1], _End) and len(rows) < self._every:
            try:
                rows.append(self._rows.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                break
        if isinstance(rows[-1], _End):
            return rows[:-1], True
        return rows, False


class _End:
    """Marks the end of a queue, and why it ended early."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
