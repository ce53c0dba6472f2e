"""``speed million``: all pairs above a threshold among a million vectors, by the exact join and by faiss.

The vectors lie in a mapped file of float16 numbers, as a plugin would keep them. Each engine runs in a process of its
own. Memory is that of the whole process, pages of the file included. Recall of the approximate search is its share of
the exact join's pairs, and beside it the estimate from sampled rows that a user gets without an exact join. A GPU is
measured by ``--device cuda --engines exact --dim 768``: on a data-centre card it should take less than a minute.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..brain.pairs import Pairs
from .report import emit
from .speed_duplicates import CLASSES, COPIES, NOISE, PeakMemory, measure_apart, planted_copies

ENGINES = ("exact", "faiss")

_MODULE = f"{__package__}.speed_million"


def add_parser(subparsers: Any) -> None:
    """Adds ``million`` to the parser of `benchmarks.speed`."""
    parser = subparsers.add_parser("million", help="pairs among a million vectors", description=__doc__)
    parser.add_argument("--n", type=int, default=1_000_000, help="number of vectors (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=384, help="dimensions of a vector (default: %(default)s)")
    parser.add_argument("--threshold", type=float, default=0.98, help="least cosine of a pair (default: %(default)s)")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--device", default="auto", help="of the exact join (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="threads of each engine; default: as the environment says")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", help="where the file of vectors goes; default: a temporary folder")
    parser.add_argument("--json", metavar="OUT", help="write the rows as JSON")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> None:
    """Runs the engines one after another, each in a fresh process, and prints the table."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="selfsame-bench-", dir=options.folder) as folder:
        path = Path(folder, "vectors.npy")
        np.save(path, planted_copies(options.n, options.dim, options.seed).astype(np.float16))
        for engine in options.engines:
            print(f"{options.n:,} vectors: {engine} ...", file=sys.stderr, flush=True)
            arguments = [engine, str(path), str(options.threshold), options.device]
            figures = measure_apart(_MODULE, arguments, options.threads)
            scope = f"{options.dim}-d, cosine {options.threshold:g}"
            rows.append({"method": engine, "group": str(options.n), "scope": scope, **figures})
        found = {engine: _load_pairs(path, engine) for engine in options.engines}
    if len(found) == len(ENGINES):
        rows[options.engines.index("faiss")]["recall"] = pair_share(found["exact"], found["faiss"], options.n)
    names = ("n", "dim", "threshold", "engines", "device", "threads", "seed")
    data = f"unit vectors in float16: {CLASSES} noisy classes, {COPIES:.0%} copies with noise {NOISE}"
    settings = {name: getattr(options, name) for name in names}
    emit(rows, data=data, settings=settings, json_path=options.json, title=f"Pairs among {data}")


def pair_share(truth: Pairs, found: Pairs, n: int) -> float:
    """Share of the true pairs that were found."""
    true_keys, found_keys = (pairs.i.astype(np.int64) * n + pairs.j for pairs in (truth, found))
    return float(np.isin(true_keys, found_keys).mean())


def worker(engine: str, path: str, threshold: float, device: str) -> None:
    """One engine in this process: writes its pairs beside the vectors, prints its figures as a line of JSON."""
    from ..brain.approximate import approximate_pairs, pair_recall
    from ..brain.neighbors import radius_pairs

    vectors = np.load(path, mmap_mode="r")
    exact = engine == "exact"
    with PeakMemory() as memory:
        start = time.perf_counter()
        pairs = radius_pairs(vectors, threshold, device=device) if exact else approximate_pairs(vectors, threshold)
        seconds = time.perf_counter() - start
    _pairs_file(Path(path), engine).write_bytes(pairs.to_bytes())
    figures = {"seconds": seconds, "peak_mb": memory.peak_mb, "added_mb": memory.added_mb, "pairs": len(pairs)}
    if not exact:
        figures["estimated_recall"] = pair_recall(vectors, pairs, threshold)
    print(json.dumps(figures))


def _pairs_file(path: Path, engine: str) -> Path:
    return path.with_name(f"{engine}.npz")


def _load_pairs(path: Path, engine: str) -> Pairs:
    return Pairs.from_bytes(_pairs_file(path, engine).read_bytes())


if __name__ == "__main__":
    worker(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4])
