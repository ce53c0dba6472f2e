"""``speed correspondence``: keypoints matched, and judged without labels, beside the same written out literally.

Three jobs: the matches alone; matches and the label-free scores that look at single keypoints; and these with the
comparison of both pictures as wholes, cell by cell of their objects. Features are synthetic and in memory: the encoder
is left out. The literal form goes pair by pair and keypoint by keypoint, as definitions read; both must find the same
matches and scores. On one thread of the CPU, seconds are those that the processor spent on the job.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits

from ..brain.correspondence.decoding import DecodeConfig
from ..brain.correspondence.evidence import EvidenceQuery, match_with_evidence
from ..brain.correspondence.features import ImageFeatures
from ..brain.correspondence.fusion import unit_features
from ..brain.correspondence.keypoint_groups import KeypointGroups, groups_from_couples
from ..brain.correspondence.matching import KeypointQuery, MatchConfig, match_keypoints
from ..brain.errors import ConfigError, SelfsameError
from ..brain.geometry import plan_geometry
from ..brain.metrics.label_free import label_free_scores
from . import literal_correspondence as literal
from .report import emit

JOBS = ("matches", "matches and scores", "matches, scores, pictures")

_PATCH = 14
_CONFIG = MatchConfig(DecodeConfig("window", literal.TEMPERATURE, literal.RADIUS))
# Pairs whose similarities are held at once.
_PORTION = 16


def add_parser(subparsers: Any) -> None:
    """Adds ``correspondence`` to the parser of `benchmarks.speed`."""
    parser = subparsers.add_parser(
        "correspondence", help="matching and label-free scores against their literal form", description=__doc__
    )
    parser.add_argument("--pairs", type=int, default=32, help="for ours (default: %(default)s)")
    parser.add_argument("--literal-pairs", type=int, default=2, help="for the literal form (default: %(default)s)")
    parser.add_argument("--keypoints", type=int, default=30, help="per pair (default: %(default)s)")
    parser.add_argument("--grid", type=int, default=60, help="cells along each side (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=768, help="dimensions of a feature (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="of ours (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu", help="cuda adds rows of ours")
    parser.add_argument("--json", metavar="OUT", help="write the rows as JSON")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> None:
    """Times the jobs in both forms and prints one row for each.

    Raises:
        ConfigError: an option cannot work.
        SelfsameError: the two forms disagree.
    """
    names = ("pairs", "literal_pairs", "keypoints", "grid", "dim", "repeats", "threads")
    if min(getattr(options, name) for name in names) < 1 or options.literal_pairs > options.pairs:
        raise ConfigError("all numbers must be at least 1, and --literal-pairs at most --pairs")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: there is no such device; use --device cpu")
    queries = synthetic_pairs(options.pairs, options.keypoints, options.grid, options.dim)
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        now = time.process_time if options.threads == 1 else time.perf_counter
        plain = [_literal_pair(query) for query in queries[: options.literal_pairs]]
        check(queries[: options.literal_pairs], plain)
        rows = compare(queries, plain, options.repeats, now)
        if options.device != "cpu" and torch.cuda.is_available():
            rows += time_ours(_moved(queries, torch.device("cuda")), options.repeats, rows)
    torch.set_num_threads(threads)
    emit(
        rows,
        data="synthetic features",
        settings={name: getattr(options, name) for name in (*names, "device")},
        json_path=options.json,
        title=f"Correspondences: {options.keypoints} keypoints at {options.grid}×{options.grid}×{options.dim},"
        " features at hand",
    )


def synthetic_pairs(pairs: int, keypoints: int, grid: int, dim: int) -> list[EvidenceQuery]:
    """Pairs of shifted pictures of an object, on fields that vary smoothly, with noise; the same at every call."""
    generator = np.random.default_rng(0)
    count = max(2, int(np.ceil((1 + np.sqrt(1 + 4 * pairs)) / 2)))
    base = gaussian_filter(generator.standard_normal((12, grid, 2 * grid)), (0, grid / 15, grid / 15))
    base /= base.std((1, 2), keepdims=True)
    into = generator.standard_normal((12, dim)) / np.sqrt(12)
    pictures, mirrored = [], []
    for number in range(count):
        start = number * grid // count
        fields = base[:, :, start : start + grid]
        mask = np.zeros((grid, grid), bool)
        left = grid // 2 - start // 2
        mask[grid // 4 : 3 * grid // 4, max(0, left - grid // 4) : left + grid // 4] = True
        pictures.append(_picture(fields, into, mask, generator))
        mirrored.append(_picture(fields[:, :, ::-1], into, mask[:, ::-1].copy(), generator))
    groups = _groups(keypoints)
    ordered = [(a, b) for a in range(count) for b in range(count) if a != b][:pairs]
    side = float(grid * _PATCH)
    return [
        EvidenceQuery(
            pictures[a], pictures[b], generator.uniform(0, side, (keypoints, 2)), mirrored[b], groups, "object"
        )
        for a, b in ordered
    ]


def _picture(fields: np.ndarray, into: np.ndarray, mask: np.ndarray, generator: np.random.Generator) -> ImageFeatures:
    grid, dim = len(mask), into.shape[1]
    tokens = np.einsum("khw,kc->hwc", fields, into) + 0.3 * generator.standard_normal((grid, grid, dim))
    geometry = plan_geometry((grid * _PATCH, grid * _PATCH), grid * _PATCH, _PATCH, "letterbox")
    features = unit_features(torch.from_numpy(tokens.astype(np.float32)))
    return ImageFeatures(features, geometry, np.ones((grid, grid), bool), mask)


def _groups(keypoints: int) -> KeypointGroups:
    """Two thirds of the keypoints in couples, the others alone."""
    names = [str(slot) for slot in range(keypoints)]
    couples = [(names[slot], names[slot + 1]) for slot in range(0, keypoints * 2 // 3 // 2 * 2, 2)]
    return groups_from_couples(names, couples)


def _literal_pair(query: EvidenceQuery) -> literal.LiteralPair:
    mirrored = query.mirrored_target
    assert mirrored is not None
    assert query.groups is not None
    boxes = []
    for picture in (query.source, query.target):
        rows, columns = np.nonzero(picture.foreground())
        boxes.append(max(rows.max() - rows.min(), columns.max() - columns.min()) * _PATCH + _PATCH)
    return literal.LiteralPair(
        query.source.features,
        query.target.features,
        mirrored.features,
        query.source.foreground(),
        query.target.foreground(),
        mirrored.foreground(),
        query.points,
        query.groups.permutation,
        query.groups.group_ids,
        *boxes,
        _PATCH,
    )


def check(queries: list[EvidenceQuery], plain: list[literal.LiteralPair]) -> None:
    """That both forms find the same.

    Raises:
        SelfsameError: they do not; the message names the scores.
    """
    matches, evidence = match_with_evidence(queries, _CONFIG)
    scores = label_free_scores(evidence)
    ours: dict[str, np.ndarray] = {"matches": np.concatenate([one.points for one in matches])}
    ours |= {"similarity": scores.similarity, **scores.matches, **scores.pairs}
    expected = {"matches": np.concatenate([literal.match(pair)[0] for pair in plain])}
    of_matches = [literal.match_scores(pair) for pair in plain]
    expected |= {name: np.concatenate([one[name] for one in of_matches]) for name in of_matches[0]}
    expected["low_similarity"] = np.array(literal.low_similarity(expected["similarity"].tolist()))
    of_pairs = [{**literal.pair_scores(pair), "imd_gap": literal.imd_gap(pair)} for pair in plain]
    expected |= {name: np.array([one[name] for one in of_pairs]) for name in of_pairs[0]}
    wrong = [name for name in expected if not np.allclose(ours[name], expected[name], 1e-3, 1e-3, equal_nan=True)]
    if wrong:
        raise SelfsameError(f"the literal form finds other {', '.join(wrong)}")


def compare(
    queries: list[EvidenceQuery], plain: list[literal.LiteralPair], repeats: int, now: Callable[[], float]
) -> list[dict[str, Any]]:
    """One row per job and form: pairs per second, and how many times the literal form's rate that is.

    Args:
        queries: pairs for our form.
        plain: some of them for the literal one.
        repeats: runs of ours, of which the median counts.
        now: counts seconds.
    """
    rows = []
    for job, ours, theirs in zip(JOBS, _OURS, _LITERAL, strict=True):
        print(f"{job} ...", file=sys.stderr, flush=True)
        ours(queries[:1])
        slow = _timed(lambda work=theirs: [work(pair) for pair in plain], now) / len(plain)
        fast = statistics.median(_timed(lambda work=ours: work(queries), now) for _ in range(repeats)) / len(queries)
        for method, seconds, count in (("literal", slow, len(plain)), ("selfsame", fast, len(queries))):
            rows.append(_row(method, job, "cpu", count, seconds, slow))
    return rows


def time_ours(queries: list[EvidenceQuery], repeats: int, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of our form on another device, against the literal one of ``rows``."""
    device = queries[0].source.features.device
    slow = {row["group"]: row["seconds_per_pair"] for row in rows if row["method"] == "literal"}
    found = []
    for job, ours in zip(JOBS, _OURS, strict=True):
        ours(queries)
        seconds = statistics.median(_timed(lambda work=ours: work(queries), time.perf_counter) for _ in range(repeats))
        found.append(_row("selfsame", job, device.type, len(queries), seconds / len(queries), slow[job]))
    return found


def _row(method: str, job: str, device: str, pairs: int, seconds: float, slow: float) -> dict[str, Any]:
    return {
        "method": method,
        "group": job,
        "scope": device,
        "pairs": pairs,
        "seconds_per_pair": seconds,
        "pairs_per_second": 1 / seconds,
        "times_the_literal": slow / seconds,
    }


def _matches(queries: list[EvidenceQuery]) -> None:
    match_keypoints([KeypointQuery(one.source, one.target, one.points) for one in queries], _CONFIG)


def _scores(queries: list[EvidenceQuery], *, pictures: bool) -> None:
    for start in range(0, len(queries), _PORTION):
        part = queries[start : start + _PORTION]
        _, evidence = match_with_evidence(part, _CONFIG, instance_distances=pictures)
        label_free_scores(evidence)


def _literal_scores(pair: literal.LiteralPair) -> None:
    literal.match_scores(pair)
    literal.pair_scores(pair)


def _literal_all(pair: literal.LiteralPair) -> None:
    _literal_scores(pair)
    literal.imd_gap(pair)


_OURS: tuple[Callable[[list[EvidenceQuery]], None], ...] = (
    _matches,
    lambda queries: _scores(queries, pictures=False),
    lambda queries: _scores(queries, pictures=True),
)
_LITERAL: tuple[Callable[[literal.LiteralPair], Any], ...] = (literal.match, _literal_scores, _literal_all)


def _timed(work: Callable[[], Any], now: Callable[[], float]) -> float:
    started = now()
    work()
    return now() - started


def _moved(queries: list[EvidenceQuery], device: torch.device) -> list[EvidenceQuery]:
    """The same pairs on another device, each picture moved once."""
    pictures = {id(one): one for query in queries for one in (query.source, query.target, query.mirrored_target) if one}
    moved = {key: replace(one, features=one.features.to(device)) for key, one in pictures.items()}
    return [
        replace(
            query,
            source=moved[id(query.source)],
            target=moved[id(query.target)],
            mirrored_target=moved[id(query.mirrored_target)],
        )
        for query in queries
    ]
