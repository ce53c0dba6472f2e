"""``speed matcher``: MATCHER's pooled pair tensor, never formed, against the tensor in full and PyTorch's pooling.

The plain way is `torch.nn.functional.adaptive_max_pool2d` on ``sim[i, j] * [a[i], b[j]]``: as that is defined,
``(P, Q, 2d)``, and, faster, laid out as the pooling wants it, with channels first. Each way runs in a process of its
own. Memory is the growth of the peak resident memory in its first pass, after a pass at a small size has loaded what
libraries load once: beyond the result, and with the result counted. Gradients that come in are made beforehand and not
counted. Times are medians of the passes after that one, of the processor on one thread, of the clock on several.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..brain.cosalient.pair_pooling import pair_pool
from ..brain.errors import ConfigError, SelfsameError
from .report import emit
from .speed_duplicates import PeakMemory, measure_apart

PASSES = ("forward", "forward + backward")
DEFINED, CHANNELS_FIRST, OURS = "as defined", "channels first", "never formed"

# How many times faster, and smaller, the pooling must be.
LEAST_SPEED, LEAST_MEMORY = 50, 30

_MODULE = f"{__package__}.speed_matcher"
_SMALL = (16, 16, 8, 4)
_MB = 1 << 20

Pool = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor]


def add_parser(subparsers: Any) -> None:
    """Adds ``matcher`` to the parser of `benchmarks.speed`."""
    parser = subparsers.add_parser("matcher", help="the pooled pair tensor of a matcher", description=__doc__)
    parser.add_argument("--p", type=int, default=256, help="tokens of the first region (default: %(default)s)")
    parser.add_argument("--q", type=int, default=256, help="tokens of the second region (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=512, help="channels of a token (default: %(default)s)")
    parser.add_argument("--k", type=int, default=64, help="side of the pooled tensor (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="passes of the plain ways (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of each way (default: %(default)s)")
    parser.add_argument("--json", metavar="OUT", help="write the rows as JSON")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> None:
    """Checks that all ways agree, times them and prints the table and what is required.

    Raises:
        ConfigError: an option is not positive.
        SelfsameError: the ways differ in a value, or in a gradient by more than rounding.
    """
    shape = (options.p, options.q, options.dim, options.k)
    if min(*shape, options.repeats, options.threads) < 1:
        raise ConfigError("--p, --q, --dim, --k, --repeats and --threads must be at least 1")
    check_agreement(shape)
    rows = []
    for name in PASSES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found = {
            way: measure_apart(_MODULE, [way, name, json.dumps(shape), str(options.repeats)], options.threads)
            for way in WAYS
        }
        result_mb = 4 * 2 * options.dim * options.k**2 / _MB
        rows += [_row(name, rival, found[rival], found[OURS], result_mb) for rival in (DEFINED, CHANNELS_FIRST)]
    emit(
        rows,
        data="random tokens",
        settings={name: getattr(options, name) for name in ("p", "q", "dim", "k", "repeats", "threads")},
        json_path=options.json,
        title=f"pooled pair tensor, P={options.p} Q={options.q} d={options.dim} K={options.k}, CPU, values equal",
    )
    print("\n" + "\n".join(verdicts(rows)))


def verdicts(rows: list[dict[str, Any]]) -> Iterator[str]:
    """One line for each ratio that is required of the pooling beside the tensor as it is defined."""
    for column, least in (("faster", LEAST_SPEED), ("smaller", LEAST_MEMORY), ("smaller_result_counted", LEAST_MEMORY)):
        for row in (row for row in rows if row["rival"] == DEFINED):
            verdict = "pass" if row[column] >= least else "FAIL"
            yield f"{row['method']}: {column} {row[column]:.1f} times, required {least}: {verdict}"


def check_agreement(shape: tuple[int, int, int, int]) -> None:
    """Runs all ways on the same tokens.

    Raises:
        SelfsameError: a value differs, or a gradient by more than rounding.
    """
    inputs, upstream = _inputs(shape)
    results = {
        way: [value.detach() for value in _one_pass(pool, inputs, upstream, shape[3], backward=True)]
        for way, pool in WAYS.items()
    }
    values, *gradients = results[OURS]
    for rival in (DEFINED, CHANNELS_FIRST):
        theirs, *their_gradients = results[rival]
        if not torch.equal(values, theirs):
            raise SelfsameError(
                f"pair_pool differs from the tensor {rival} by {float((values - theirs).abs().max()):.3g}"
            )
        for name, one, other in zip(("a", "b", "sim"), gradients, their_gradients, strict=True):
            if not torch.allclose(one, other, rtol=1e-3, atol=1e-3):
                raise SelfsameError(f"the gradients of {name} differ by {float((one - other).abs().max()):.3g}")


def defined_pool(a: torch.Tensor, b: torch.Tensor, sim: torch.Tensor, k: int) -> torch.Tensor:
    """What :func:`.pair_pool` computes, ``(k, k, 2d)``, word by word by way of the ``(P, Q, 2d)`` tensor."""
    tokens = torch.cat([a[:, None].expand(-1, len(b), -1), b[None].expand(len(a), -1, -1)], dim=2)
    return torch.nn.functional.adaptive_max_pool2d((sim[..., None] * tokens).permute(2, 0, 1), k).permute(1, 2, 0)


def channels_first_pool(a: torch.Tensor, b: torch.Tensor, sim: torch.Tensor, k: int) -> torch.Tensor:
    """The same by way of a ``(2d, P, Q)`` tensor, of which the pooling needs no copy."""
    tokens = torch.cat([a.T[:, :, None].expand(-1, -1, len(b)), b.T[:, None].expand(-1, len(a), -1)])
    return torch.nn.functional.adaptive_max_pool2d(tokens * sim, k).permute(1, 2, 0)


WAYS: dict[str, Pool] = {DEFINED: defined_pool, CHANNELS_FIRST: channels_first_pool, OURS: pair_pool}


def worker(way: str, name: str, shape: tuple[int, int, int, int], repeats: int) -> None:
    """One way in this process; prints its figures as a line of JSON."""
    pool = WAYS[way]
    backward = name == PASSES[1]
    _one_pass(pool, *_inputs(_SMALL), _SMALL[3], backward)
    inputs, upstream = _inputs(shape)
    with PeakMemory() as memory:
        _one_pass(pool, inputs, upstream, shape[3], backward)
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds = []
    for _ in range(5 * repeats if way == OURS else repeats):
        start = clock()
        _one_pass(pool, inputs, upstream, shape[3], backward)
        seconds.append(clock() - start)
    print(json.dumps({"seconds": statistics.median(seconds), "added_mb": memory.added_mb}))


def _one_pass(
    pool: Pool, inputs: tuple[torch.Tensor, ...], upstream: torch.Tensor, k: int, backward: bool
) -> list[torch.Tensor]:
    leaves = [value.detach().requires_grad_(backward) for value in inputs]
    result = pool(*leaves, k)
    return [result, *torch.autograd.grad(result, leaves, upstream)] if backward else [result]


def _inputs(shape: tuple[int, int, int, int]) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Tokens of both regions, their cosines, and the gradient that comes in."""
    p, q, dim, k = shape
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, dim, generator=generator) for n in (p, q))
    sim = torch.nn.functional.normalize(a, dim=1) @ torch.nn.functional.normalize(b, dim=1).T
    return (a, b, sim), torch.randn(k, k, 2 * dim, generator=generator)


def _row(name: str, rival: str, theirs: dict[str, float], ours: dict[str, float], result_mb: float) -> dict[str, Any]:
    beyond = [max(figures["added_mb"] - result_mb, 0.0) for figures in (theirs, ours)]
    return {
        "method": name,
        "rival": rival,
        "rival_ms": 1000 * theirs["seconds"],
        "ours_ms": 1000 * ours["seconds"],
        "faster": theirs["seconds"] / ours["seconds"],
        "rival_mb": theirs["added_mb"],
        "ours_mb": ours["added_mb"],
        "result_mb": result_mb,
        "smaller": beyond[0] / beyond[1] if beyond[1] else float("inf"),
        "smaller_result_counted": theirs["added_mb"] / ours["added_mb"] if ours["added_mb"] else float("inf"),
    }


if __name__ == "__main__":
    worker(sys.argv[1], sys.argv[2], tuple(json.loads(sys.argv[3])), int(sys.argv[4]))
