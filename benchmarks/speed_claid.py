"""``speed claid``: the region detector of CLAID, written out literally, and ours, on the same maps of tokens.

Maps are synthetic ones and, where the golden vectors are at hand, features of photographs turned into 768 dimensions.
The encoder is left out. All engines must find the partitions of the literal detector; normalised cuts, with which the
paper compares, find others by design. Times are seconds per image; on one thread of the CPU, those that the processor
spent on it, which nothing else that runs on the machine adds to.
"""

import argparse
import contextlib
import importlib.util
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits

from ..brain.claid import affinity, batched, hierarchy
from ..brain.claid.hierarchy import EngineName, Hierarchy, detect_batch
from ..brain.claid.options import DetectorOptions
from ..brain.errors import ConfigError, SelfsameError
from .report import emit

Regions = list[tuple[int, frozenset[int]]]

_LITERAL = Path(__file__).resolve().parent.parent / "tests" / "claid_literal.py"
_PHOTOGRAPHS = {(45, 60): "img_b", (45, 80): "img_c"}

# BLAS libraries round differently: pairs this near to the threshold of a link may be linked by one of them only.
_CLEARANCE = 4e-6


def add_parser(subparsers: Any) -> None:
    """Adds ``claid`` to the parser of `benchmarks.speed`."""
    parser = subparsers.add_parser("claid", help="the detector of CLAID against its literal form", description=__doc__)
    parser.add_argument("--reference", type=Path, metavar="DIR", help="golden vectors; default: synthetic maps only")
    parser.add_argument("--maps", type=int, default=2, help="synthetic maps of each grid (default: %(default)s)")
    parser.add_argument("--grids", nargs="+", type=_grid, default=[(45, 60), (45, 80)], metavar="HxW")
    parser.add_argument("--dim", type=int, default=768, help="dimensions of a token (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="of the fast methods (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="cuda adds rows of batches")
    parser.add_argument("--batch-size", type=int, default=64, help="of the rows of batches (default: %(default)s)")
    parser.add_argument("--json", metavar="OUT", help="write the rows as JSON")
    parser.set_defaults(func=run)


def _grid(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)


def run(options: argparse.Namespace) -> None:
    """Times all methods on all maps and prints one row per method and kind of map.

    Raises:
        ConfigError: an option cannot work, or there is nothing to measure.
        SelfsameError: an engine finds other partitions than the literal detector.
    """
    if min(options.repeats, options.threads, options.batch_size, options.dim) < 1 or options.maps < 0:
        raise ConfigError("--repeats, --threads, --batch-size and --dim must be at least 1, --maps at least 0")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: there is no such device; use --device cpu")
    literal = load_literal()
    kinds = _kinds_of_maps(options)
    rows: list[dict[str, Any]] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        for (group, height, width), maps in kinds.items():
            scope = f"{height}×{width}×{options.dim}"
            print(f"{group} {scope} ...", file=sys.stderr, flush=True)
            compared = compare(
                maps, literal, options.repeats, time.process_time if options.threads == 1 else time.perf_counter
            )
            rows += [{"group": group, "scope": scope, **row} for row in compared]
            if options.device != "cpu" and torch.cuda.is_available():
                row = time_batch(maps, options.batch_size, options.repeats, torch.device("cuda"))
                rows.append({"group": group, "scope": scope, **row})
    torch.set_num_threads(threads)
    names = ("maps", "dim", "repeats", "threads", "device", "batch_size")
    emit(
        [{"method": row["method"], **row} for row in rows],
        data=options.reference or "synthetic maps",
        settings={name: getattr(options, name) for name in names},
        json_path=options.json,
        title="CLAID's detector: seconds per image, without the encoder",
    )
    wrong = [f"{row['method']} on {row['group']} {row['scope']}" for row in rows if row["same_partitions"] == "no"]
    if wrong:
        raise SelfsameError(f"other partitions than those of the literal detector: {', '.join(wrong)}")


def load_literal() -> ModuleType:
    """The literal detector, which is part of the tests and not of the installed package.

    Raises:
        ConfigError: the tests are not at hand.
    """
    if not _LITERAL.is_file():
        raise ConfigError(f"{_LITERAL} is missing; run this benchmark in a checkout of the repository")
    spec = importlib.util.spec_from_file_location(_LITERAL.stem, _LITERAL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _kinds_of_maps(options: argparse.Namespace) -> dict[tuple[str, int, int], list[np.ndarray]]:
    kinds = {}
    for height, width in options.grids:
        if options.maps:
            seeds = range(options.maps)
            kinds["synthetic", height, width] = [synthetic_map(seed, height, width, options.dim) for seed in seeds]
        if options.reference and (height, width) in _PHOTOGRAPHS:
            path = _golden_file(options.reference, f"{_PHOTOGRAPHS[height, width]}.npz")
            kinds["photograph", height, width] = [photograph_map(path, options.dim)]
    if not kinds:
        raise ConfigError("there are no maps; use --maps of at least 1, or --reference with a grid of 45x60 or 45x80")
    return kinds


def _golden_file(folder: Path, name: str) -> Path:
    """A file of golden vectors, in the folder or anywhere below it."""
    return next(iter(sorted(folder.rglob(name))), folder / name)


def synthetic_map(seed: int, height: int, width: int, dim: int) -> np.ndarray:
    """``(h, w, dim)`` float32 tokens in 6 to 12 smooth regions, with slow drift and noise."""
    generator = np.random.default_rng(seed)

    def directions(count: int) -> np.ndarray:
        return generator.standard_normal((count, dim)) / np.sqrt(dim)

    def fields(count: int, scale: float) -> np.ndarray:
        rough = generator.standard_normal((count, height, width))
        smooth = gaussian_filter(rough, (0, scale, scale), mode="nearest")
        return smooth / smooth.std((1, 2), keepdims=True)

    regions = int(generator.integers(6, 13))
    region = fields(regions, height / 8).argmax(0)
    groups = directions(3)[generator.integers(0, 3, regions)]
    prototypes = 0.3 * directions(1) + 0.5 * groups + directions(regions)
    drift = np.einsum("khw,kc->hwc", fields(8, height / 6), directions(8))
    noise = generator.standard_normal((height, width, dim)) / np.sqrt(dim)
    tokens = prototypes[region] + 0.5 * drift + 1.2 * noise
    return _clear_threshold(tokens * generator.uniform(0.7, 1.3, regions)[region][..., None], generator)


def photograph_map(path: Path, dim: int) -> np.ndarray:
    """``(h, w, dim)`` float32 tokens from a golden file of fewer dimensions, by a fixed rotation into more of them.

    Raises:
        ConfigError: the file cannot be read, or it has more dimensions than asked for.
    """
    try:
        with np.load(path) as data:
            grid, features = data["grid"], data["features"].astype(np.float64)
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(f"{path} is no golden file ({error}); check --reference") from error
    if features.shape[1] > dim:
        raise ConfigError(f"--dim {dim} is too small: {path.name} has {features.shape[1]} dimensions")
    generator = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(generator.standard_normal((dim, features.shape[1])))
    return _clear_threshold((features @ rotation.T).reshape(*grid, dim), generator)


def _clear_threshold(tokens: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """float32 tokens without a pair whose cosine is the threshold of a link but for rounding; a few are nudged."""
    tokens = tokens.astype(np.float32)
    flat = tokens.reshape(-1, tokens.shape[-1])
    while True:
        unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        close = np.abs(unit @ unit.T - DetectorOptions().alpha) < _CLEARANCE
        # One patch of each pair is enough.
        nudged = np.flatnonzero(np.triu(close).any(1))
        if not len(nudged):
            return tokens
        scale = 1e-3 * np.abs(flat).mean()
        flat[nudged] += scale * generator.standard_normal((len(nudged), flat.shape[1]), dtype=np.float32)


@dataclass
class _Clock:
    """Seconds, as ``now`` counts them, spent in the functions that it is put around."""

    now: Callable[[], float]
    seconds: float = 0.0

    @contextlib.contextmanager
    def around(self, functions: list[tuple[ModuleType, str]]) -> Iterator[None]:
        """Puts the clock around functions of modules, which are looked up there when they are called."""
        originals = [getattr(module, name) for module, name in functions]
        for (module, name), original in zip(functions, originals, strict=True):
            setattr(module, name, self._timed(original))
        try:
            yield
        finally:
            for (module, name), original in zip(functions, originals, strict=True):
                setattr(module, name, original)

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            started = self.now()
            result = function(*arguments)
            self.seconds += self.now() - started
            return result

        return timed


@dataclass(frozen=True)
class _Method:
    """A detector: what it does to a map, and which of its functions belong to the affinity, not to the clustering."""

    name: str
    detect: Callable[[np.ndarray], Any]
    affinity: list[tuple[ModuleType, str]]


@dataclass(frozen=True)
class _Timed:
    total: float
    affinity: float
    result: Any


def compare(
    maps: list[np.ndarray], literal: ModuleType, repeats: int, now: Callable[[], float]
) -> list[dict[str, Any]]:
    """One row per method: mean seconds per map, how often that fits into the literal detector's, and its partitions.

    Args:
        maps: ``(h, w, C)`` float32 tokens.
        literal: see :func:`load_literal`.
        repeats: runs on each map; the literal detector has one.
        now: counts seconds.
    """
    ours = _methods()
    for method in ours:
        method.detect(maps[0])  # whatever is compiled is compiled now
    plain = _Method(
        "literal", lambda tokens: literal.literal_detect(tokens, DetectorOptions()), [(literal, "literal_affinity")]
    )
    expected = [_time(plain, tokens, 1, now) for tokens in maps]
    rows = []
    for method in [plain, *ours]:
        timed = expected if method is plain else [_time(method, tokens, repeats, now) for tokens in maps]
        row = _row(method.name, timed, expected)
        if method.name != "literal":
            row["cuts"] = statistics.fmean(len(one.result.cuts) for one in timed)
        if method.name not in ("literal", "ncut"):
            row["same_partitions"] = _same([one.result for one in timed], [one.result for one in expected])
        rows.append(row)
    return rows


def _methods() -> list[_Method]:
    def engine(name: EngineName, **changes: Any) -> Callable[[np.ndarray], Hierarchy]:
        return lambda tokens: detect_batch(tokens[None], DetectorOptions(**changes), engine=name)[0]

    similarity = (hierarchy, "similarity_of")
    methods = [
        _Method("numpy", engine("numpy"), [similarity, (affinity, "unit_rows")]),
        _Method("torch", engine("torch"), [(batched, "describe_images")]),
    ]
    try:
        from ..brain.claid import compiled
    except ImportError:
        fast, unit_rows = "numpy", (affinity, "unit_rows")
    else:
        fast, unit_rows = "compiled", (compiled, "unit_rows")
        methods.insert(0, _Method("compiled", engine("compiled"), [similarity, unit_rows]))
    return [*methods, _Method("ncut", engine(fast, cut="ncut"), [similarity, unit_rows])]


def _time(method: _Method, tokens: np.ndarray, repeats: int, now: Callable[[], float]) -> _Timed:
    """The median of several runs on one map."""
    runs = []
    for _ in range(repeats):
        clock = _Clock(now)
        with clock.around(method.affinity):
            started = now()
            result = method.detect(tokens)
            runs.append(_Timed(now() - started, clock.seconds, result))
    return sorted(runs, key=lambda one: one.total)[len(runs) // 2]


def _row(name: str, timed: list[_Timed], expected: list[_Timed]) -> dict[str, Any]:
    total, slow_total = (statistics.fmean(one.total for one in some) for some in (timed, expected))
    stage, slow_stage = (statistics.fmean(one.total - one.affinity for one in some) for some in (timed, expected))
    return {
        "method": name,
        "maps": len(timed),
        "total_s": total,
        "affinity_s": total - stage,
        "clustering_s": stage,
        "total_ratio": slow_total / total,
        "clustering_ratio": slow_stage / stage,
        "cuts": None,
        "same_partitions": None,
    }


def _same(found: list[Hierarchy], expected: list[Regions]) -> str:
    return "yes" if all(regions_of(one) == set(other) for one, other in zip(found, expected, strict=True)) else "no"


def regions_of(tree: Hierarchy) -> set[tuple[int, frozenset[int]]]:
    """Level and patches of every region."""
    masks = tree.masks.reshape(len(tree), -1)
    return {
        (int(level), frozenset(np.flatnonzero(mask).tolist())) for level, mask in zip(tree.level, masks, strict=True)
    }


def time_batch(maps: list[np.ndarray], size: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """A row for the torch engine on ``size`` images at once: the maps, shifted and turned over.

    The trees must be those of the compiled, or else of the array, engine on every image by itself.
    """
    views = (np.roll(one, shift, 1)[:: -1 if shift % 2 else 1] for shift in range(size) for one in maps)
    tokens = torch.from_numpy(np.stack(list(itertools.islice(views, size)))).to(device)
    found = detect_batch(tokens, engine="torch")
    seconds = []
    for _ in range(repeats):
        _wait_for(device)
        started = time.perf_counter()
        detect_batch(tokens, engine="torch")
        _wait_for(device)
        seconds.append(time.perf_counter() - started)
    expected = [list(regions_of(one)) for one in detect_batch(tokens.cpu())]
    total = statistics.median(seconds) / size
    return {
        "method": f"torch, {size} at once, {device.type}",
        "maps": size,
        "total_s": total,
        "ms_per_image": 1000 * total,
        "cuts": statistics.fmean(len(one.cuts) for one in found),
        "same_partitions": _same(found, expected),
    }


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
