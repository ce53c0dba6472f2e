"""``speed duplicates``: this plugin's duplicate search against FiftyOne Brain's, in time and in added memory.

Every engine runs in a process of its own on the same file of vectors. Measured is the whole way from vectors in memory
to "this image is a copy of that one": for us pairs, groups of bounded diameter and keepers; for FiftyOne Brain building
its sklearn index and `find_duplicates`. The pairs are then held against brute force: all raw cosines in float32. Once
more we search a mapped file of float16 numbers, whose pages count as added memory as far as they were read.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..brain.errors import SelfsameError
from ..fixtures.private_database import private_database
from .report import emit

SIZES = (10_000, 50_000, 100_000)
CLASSES, COPIES, NOISE = 500, 0.2, 0.05

# Cosines this near the threshold may fall on either side of it in float32.
TOLERANCE = 1e-6

# Our engine on a mapped file of float16 numbers.
MAPPED = "selfsame_mapped"

_MODULE = f"{__package__}.speed_duplicates"


def add_parser(subparsers: Any) -> None:
    """Adds ``duplicates`` to the parser of `benchmarks.speed`."""
    parser = subparsers.add_parser("duplicates", help="duplicate search against FiftyOne Brain", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N", help="numbers of vectors")
    parser.add_argument("--dim", type=int, default=768, help="dimensions of a vector (default: %(default)s)")
    parser.add_argument("--threshold", type=float, default=0.98, help="least cosine of a pair (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="threads of each engine; default: as the environment says")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="OUT", help="write the rows as JSON")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> None:
    """Runs all engines at all sizes, each in a fresh process, and prints the table."""
    rows: list[dict[str, Any]] = []
    # A database of its own: a benchmark must not leave datasets in the user's.
    with tempfile.TemporaryDirectory(prefix="selfsame-bench-") as folder, private_database(Path(folder, "database")):
        path = Path(folder, "vectors.npy")
        for n in options.sizes:
            vectors = planted_copies(n, options.dim, options.seed)
            np.save(path, vectors)
            np.save(_halved(path), vectors.astype(np.float16))
            del vectors
            rows += _compare(n, path, options)
    settings = {name: getattr(options, name) for name in ("sizes", "dim", "threshold", "threads", "seed")}
    data = f"unit vectors: {CLASSES} noisy classes, {COPIES:.0%} copies with noise {NOISE}"
    emit(rows, data=data, settings=settings, json_path=options.json, title=f"Duplicates among {data}")


def planted_copies(n: int, dim: int, seed: int) -> np.ndarray:
    """``(n, dim)`` float32 unit vectors in noisy classes, a fifth of them noisy copies of others."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((CLASSES, dim), dtype=np.float32)
    vectors = generator.standard_normal((n, dim), dtype=np.float32)
    vectors += centres[generator.integers(0, CLASSES, n)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = generator.permutation(n)
    copies, originals = np.split(order, [int(COPIES * n)])
    noise = generator.standard_normal((len(copies), dim), dtype=np.float32) * np.float32(NOISE / np.sqrt(dim))
    vectors[copies] = vectors[generator.choice(originals, len(copies))] + noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def compare_pairs(found: np.ndarray, truth: np.ndarray, n: int, threshold: float) -> tuple[int, int]:
    """How many true pairs are missing and how many found ones are wrong, but for those at the threshold itself.

    Args:
        found, truth: ``(p, 3)`` float64 rows ``i, j, cosine`` with ``i < j``.
    """
    keys = [pairs[:, 0].astype(np.int64) * n + pairs[:, 1].astype(np.int64) for pairs in (found, truth)]
    clear = [np.abs(pairs[:, 2] - threshold) > TOLERANCE for pairs in (found, truth)]
    missed = np.setdiff1d(keys[1][clear[1]], keys[0])
    extra = np.setdiff1d(keys[0][clear[0]], keys[1])
    return len(missed), len(extra)


def _compare(n: int, path: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    results = {}
    for engine in ENGINES:
        print(f"{n:,} vectors: {engine} ...", file=sys.stderr, flush=True)
        results[engine] = measure_apart(_MODULE, [engine, str(path), str(options.threshold)], options.threads)
    pairs = {engine: np.load(path.with_name(f"{engine}.npy")) for engine in ("selfsame", "brute_force")}
    missed, extra = compare_pairs(pairs["selfsame"], pairs["brute_force"], n, options.threshold)
    brain = results["fiftyone_brain"]
    rows = []
    for engine, result in results.items():
        row = {"method": engine, "group": str(n), "scope": f"{options.dim}-d, cosine {options.threshold:g}", **result}
        row["speedup"] = brain["seconds"] / result["seconds"]
        row["memory_share"] = result["added_mb"] / max(brain["added_mb"], 1e-9)
        rows.append(row)
    rows[0] |= {"missed_pairs": missed, "extra_pairs": extra}
    return rows


def measure_apart(module: str, arguments: Sequence[str], threads: int | None) -> dict[str, Any]:
    """Runs a module in a fresh process and reads the figures that it prints as its last line, as JSON."""
    environment = dict(os.environ, FIFTYONE_DO_NOT_TRACK="true", HF_HUB_OFFLINE="1")
    if threads:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment |= dict.fromkeys(names, str(threads))
    command = [sys.executable, "-m", module, *arguments]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    if finished.returncode:
        raise SelfsameError(f"the engine {arguments[0]} failed:\n{finished.stderr[-2000:]}")
    return json.loads(finished.stdout.splitlines()[-1])


class PeakMemory:
    """The process's peak resident memory while the block runs, ``.peak_mb``, and its growth, ``.added_mb``."""

    def __enter__(self) -> "PeakMemory":
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the kernel forgets earlier peaks
        self.before = _status_mb("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.peak_mb = _status_mb("VmHWM")
        self.added_mb = self.peak_mb - self.before


def _status_mb(name: str) -> float:
    """A line of the process's status; not `getrusage`, whose peak a new process inherits from its parent."""
    match = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if match is None:
        raise SelfsameError(f"/proc/self/status lacks {name}; this benchmark needs Linux")
    return int(match[1]) / 1024


def _selfsame(vectors: np.ndarray, threshold: float) -> Callable[[], dict[str, Any]]:
    from ..brain.grouping import assign_roles, group_pairs
    from ..brain.neighbors import radius_pairs

    def work() -> dict[str, Any]:
        pairs = radius_pairs(vectors, threshold, device="cpu")
        searched = time.perf_counter()
        labels = group_pairs(len(vectors), pairs, max_diameter=2 * (1 - threshold), vectors=vectors)
        groups = assign_roles(labels, np.zeros(len(vectors)), vectors=vectors)
        return {
            "searched": searched,
            "pairs": np.stack([pairs.i, pairs.j, pairs.similarity.astype(np.float64)], axis=1),
            "duplicates": int((groups.role == "duplicate").sum()),
        }

    return work


def _fiftyone_brain(vectors: np.ndarray, threshold: float) -> Callable[[], dict[str, Any]]:
    import fiftyone as fo
    import fiftyone.brain as fob

    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=f"/nowhere/{row}.jpg") for row in range(len(vectors))], progress=False)

    def work() -> dict[str, Any]:
        index = fob.compute_similarity(dataset, embeddings=vectors, backend="sklearn", progress=False)
        index.find_duplicates(thresh=1.0 - threshold)
        return {"duplicates": len(index.duplicate_ids)}

    return work


def _brute_force(vectors: np.ndarray, threshold: float) -> Callable[[], dict[str, Any]]:
    def work() -> dict[str, Any]:
        found = []
        for start in range(0, len(vectors), 1000):
            similarity = vectors[start : start + 1000] @ vectors.T
            i, j = np.nonzero(similarity >= np.float32(threshold))
            upper = i + start < j
            i, j = i[upper], j[upper]
            found.append(np.stack([i + start, j, similarity[i, j].astype(np.float64)], axis=1))
        return {"pairs": np.concatenate(found)}

    return work


def _halved(path: Path) -> Path:
    return path.with_name("vectors_float16.npy")


ENGINES = {"selfsame": _selfsame, MAPPED: _selfsame, "fiftyone_brain": _fiftyone_brain, "brute_force": _brute_force}


def worker(engine: str, path: str, threshold: float) -> None:
    """One engine in this process: writes its pairs beside the vectors, prints its figures as a line of JSON."""
    vectors = np.load(_halved(Path(path)), mmap_mode="r") if engine == MAPPED else np.load(path)
    work = ENGINES[engine](vectors, threshold)
    with PeakMemory() as memory:
        start = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - start
    figures: dict[str, Any] = {"seconds": seconds, "added_mb": memory.added_mb}
    if "pairs" in result:
        np.save(Path(path).with_name(f"{engine}.npy"), result["pairs"])
        figures["pairs"] = len(result["pairs"])
    if "searched" in result:
        figures["search_seconds"] = result["searched"] - start
    figures["duplicates"] = result.get("duplicates")
    print(json.dumps(figures))


if __name__ == "__main__":
    worker(sys.argv[1], sys.argv[2], float(sys.argv[3]))
