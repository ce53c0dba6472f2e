"""Where the keypoints of one picture lie in another, for many pairs at a time.

Sources: Zhang et al., "Telling Left from Right" (CVPR 2024) for the matching by cosine; Mariotti et al., "Improving
Semantic Correspondence with Viewpoint-Guided Spherical Maps" (CVPR 2024) for the blend with a second similarity.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch

from ..errors import ConfigError
from ..geometry import points_to_canvas, points_to_image
from .decoding import DecodeConfig, Decoded, decode
from .features import ImageFeatures
from .grids import CELL_CENTRES, CellCentre, as_points, cells_to_places, cells_to_points, points_to_cells

SimilarityKind = Literal["cosine", "euclidean"]
SIMILARITY_KINDS: tuple[SimilarityKind, ...] = ("cosine", "euclidean")

# Added to each coordinate's difference, as published with the spherical maps.
_COORDINATE_OFFSET = 1e-6

# Similarities held at a time, in numbers: bounds the memory of many pairs.
_CHUNK = 32_000_000


@dataclass(frozen=True)
class MatchConfig:
    """How keypoints are matched.

    Attributes:
        decode: how a place is read from similarities.
        similarity: ``"cosine"`` (products of unit vectors), or ``"euclidean"``, the negative distance.
        round_trip: also find the way back of each match, for the mutual test; costs as much again.
        keep_similarity: also give the similarities of each point to all cells of the target.
        cell_centre: see :func:`.grids.cells_to_points`.
        clip_tokens: see ``clip`` of :func:`.grids.points_to_cells`.

    Raises:
        ConfigError: an option is unknown.
    """

    decode: DecodeConfig = field(default_factory=DecodeConfig)
    similarity: SimilarityKind = "cosine"
    round_trip: bool = False
    keep_similarity: bool = False
    cell_centre: CellCentre = "middle"
    clip_tokens: bool = True

    def __post_init__(self) -> None:
        if self.similarity not in SIMILARITY_KINDS:
            raise ConfigError(f"similarity={self.similarity!r} is unknown; use one of {', '.join(SIMILARITY_KINDS)}")
        if self.cell_centre not in CELL_CENTRES:
            raise ConfigError(f"cell_centre={self.cell_centre!r} is unknown; use one of {', '.join(CELL_CENTRES)}")


@dataclass(frozen=True)
class KeypointQuery:
    """Points of one picture to be found in another.

    Attributes:
        source, target: the described pictures.
        points: ``(n, 2)`` ``(x, y)`` in pixels of the source picture; one that is not finite is not looked for.
        target_region: ``(h, w)`` bool: cells of the target that may be found; None allows the whole picture.
    """

    source: ImageFeatures
    target: ImageFeatures
    points: np.ndarray
    target_region: np.ndarray | None = None


@dataclass(frozen=True)
class KeypointMatches:
    """Where the n points of a query were found.

    Attributes:
        points: ``(n, 2)`` float64 ``(x, y)`` in pixels of the target picture; NaN where nothing was looked for.
        similarity: ``(n,)`` float32 similarity of the most similar cell; NaN likewise.
        cells: ``(n,)`` int64 that cell; -1 where nothing was looked for.
        source_cells: ``(n,)`` int64 the cell that each point lies in; -1 likewise.
        returned: ``(n, 2)`` float64 ``(x, y)`` in pixels of the source picture: the centre of the cell most similar to
            the one that was found; None without ``round_trip``.
        mutual: ``(n,)`` bool: whether that is the cell one came from; None without ``round_trip``.
        maps: ``(n, h, w)`` float32 similarities, ``-inf`` where nothing may be found; None without
            ``keep_similarity``.
    """

    points: np.ndarray
    similarity: np.ndarray
    cells: np.ndarray
    source_cells: np.ndarray
    returned: np.ndarray | None = None
    mutual: np.ndarray | None = None
    maps: np.ndarray | None = None


def similarity_map(
    descriptors: torch.Tensor, target: torch.Tensor, kind: SimilarityKind = "cosine", *, out: torch.Tensor | None = None
) -> torch.Tensor:
    """How much each cell of a grid is like each of n descriptors.

    Args:
        descriptors: ``(n, C)``.
        target: ``(h, w, C)``.
        kind: ``"cosine"``: products, which are cosines of unit vectors; ``"euclidean"``: negative distances.
        out: ``(n, h * w)`` memory for the result of ``"cosine"``.

    Returns:
        ``(n, h, w)`` float.
    """
    flat = target.flatten(0, 1)
    if kind == "cosine":
        return torch.mm(descriptors, flat.T, out=out).view(-1, *target.shape[:2])
    return -torch.cdist(descriptors + _COORDINATE_OFFSET, flat).view(-1, *target.shape[:2])


def blend(similarity: torch.Tensor, other: torch.Tensor, weight: float = 0.2) -> torch.Tensor:
    """Two similarities of the same kind as one, ``(1 - weight) * similarity + weight * other``; any equal shapes."""
    return (1 - weight) * similarity + weight * other


def match_keypoints(queries: Sequence[KeypointQuery], config: MatchConfig | None = None) -> list[KeypointMatches]:
    """Finds keypoints of many pairs.

    Queries with equally large target grids share their arithmetic; the outcome of each is as if it were alone.

    Args:
        queries: pairs with their points.
        config: None takes the defaults.

    Raises:
        ConfigError: points have no (n, 2) shape, a region does not fit its picture, or the pictures of a query were
            described in different ways.
    """
    config = config or MatchConfig()
    located = [_locate(query, config) for query in queries]
    results: dict[int, KeypointMatches] = {}
    for members in _chunks(queries, located):
        found = _match([queries[index] for index in members], [located[index] for index in members], config)
        results.update(zip(members, found, strict=True))
    return [results[index] for index in range(len(queries))]


@dataclass(frozen=True)
class _Located:
    """Which points of a query are looked for, ``(n,)`` bool, and the cells that those lie in."""

    wanted: np.ndarray
    cells: np.ndarray


def _locate(query: KeypointQuery, config: MatchConfig) -> _Located:
    if query.source.features.shape[2] != query.target.features.shape[2]:
        raise ConfigError(
            f"source and target have {query.source.features.shape[2]} and {query.target.features.shape[2]} channels;"
            " describe both in the same way"
        )
    points = as_points(query.points)
    wanted = np.isfinite(points).all(axis=1)
    geometry = query.source.geometry
    on_canvas = points_to_canvas(points[wanted], geometry)
    return _Located(wanted, points_to_cells(on_canvas, geometry.grid_hw, geometry.patch, clip=config.clip_tokens))


def _chunks(queries: Sequence[KeypointQuery], located: Sequence[_Located]) -> list[list[int]]:
    """Numbers of queries to be handled together: the same target grid and device, and not too many similarities."""
    groups: dict[tuple, list[list[int]]] = {}
    rows: dict[tuple, int] = {}
    for index, (query, place) in enumerate(zip(queries, located, strict=True)):
        features = query.target.features
        key = (features.shape, features.device, features.dtype)
        size = len(place.cells) * features.shape[0] * features.shape[1]
        if key not in groups or rows[key] + size > _CHUNK:
            groups.setdefault(key, []).append([])
            rows[key] = 0
        groups[key][-1].append(index)
        rows[key] += size
    return [members for chunks in groups.values() for members in chunks]


def _match(queries: Sequence[KeypointQuery], located: Sequence[_Located], config: MatchConfig) -> list[KeypointMatches]:
    features = queries[0].target.features
    height, width = features.shape[:2]
    bounds = np.cumsum([0, *(len(one.cells) for one in located)])
    similarity = features.new_empty(bounds[-1], height * width)
    valid = torch.empty(len(queries), height * width, dtype=torch.bool)
    for number, (query, place) in enumerate(zip(queries, located, strict=True)):
        descriptors = _descriptors(query.source.features, place.cells)
        rows = similarity[bounds[number] : bounds[number + 1]]
        found = similarity_map(
            descriptors, query.target.features, config.similarity, out=rows if config.similarity == "cosine" else None
        )
        if config.similarity != "cosine":
            rows.copy_(found.flatten(1))
        valid[number] = torch.from_numpy(_allowed(query).ravel())
    if not valid.all():
        counts = torch.from_numpy(np.diff(bounds))
        excluded = ~valid.to(features.device).repeat_interleave(counts.to(features.device), dim=0)
        similarity.masked_fill_(excluded, -torch.inf)
    volume = similarity.view(-1, height, width)
    decoded = decode(volume, config.decode)
    maps = volume.float().cpu().numpy() if config.keep_similarity else None
    outcomes = []
    for query, place, start, stop in zip(queries, located, bounds, bounds[1:], strict=False):
        outcome = _outcome(query, place, _part(decoded, int(start), int(stop)), config)
        if maps is not None:
            own = maps[start:stop]
            whole = own if place.wanted.all() else _spread(len(place.wanted), place.wanted, own, np.float32(-np.inf))
            outcome = replace(outcome, maps=whole)
        outcomes.append(outcome)
    return outcomes


def _descriptors(features: torch.Tensor, cells: np.ndarray) -> torch.Tensor:
    return features.flatten(0, 1)[torch.from_numpy(cells).to(features.device)]


def _allowed(query: KeypointQuery) -> np.ndarray:
    region = query.target_region
    if region is None:
        return query.target.valid
    if region.shape != query.target.valid.shape:
        raise ConfigError(f"target_region of {region.shape} cells for a grid of {query.target.valid.shape}")
    return query.target.valid & region


def _part(decoded: Decoded, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places, cells and peaks of some rows, in the memory of numpy."""
    return (
        decoded.places[start:stop].cpu().numpy(),
        decoded.cells[start:stop].cpu().numpy(),
        decoded.peaks[start:stop].float().cpu().numpy(),
    )


def _outcome(
    query: KeypointQuery, place: _Located, found: tuple[np.ndarray, np.ndarray, np.ndarray], config: MatchConfig
) -> KeypointMatches:
    n, geometry = len(place.wanted), query.target.geometry
    places, cells, peaks = found
    on_canvas = cells_to_points(places, geometry.patch, config.cell_centre)
    wanted = place.wanted.copy()
    # Where no cell may be found, there is no match either.
    wanted[place.wanted] = np.isfinite(peaks)
    seen = np.isfinite(peaks)
    returned = mutual = None
    if config.round_trip:
        back = _way_back(query, cells[seen], config)
        centres = cells_to_points(
            cells_to_places(back, query.source.geometry.grid_hw), query.source.geometry.patch, config.cell_centre
        )
        returned = _spread(n, wanted, points_to_image(centres, query.source.geometry), np.nan)
        mutual = _spread(n, wanted, back == place.cells[seen], False)
    return KeypointMatches(
        points=_spread(n, wanted, points_to_image(on_canvas, geometry)[seen], np.nan),
        similarity=_spread(n, wanted, peaks[seen], np.float32(np.nan)),
        cells=_spread(n, wanted, cells[seen], np.int64(-1)),
        source_cells=_spread(n, place.wanted, place.cells, np.int64(-1)),
        returned=returned,
        mutual=mutual,
    )


def _way_back(query: KeypointQuery, cells: np.ndarray, config: MatchConfig) -> np.ndarray:
    """``(n,)`` the cell of the source most similar to each of some cells of the target."""
    descriptors = _descriptors(query.target.features, cells)
    similarity = similarity_map(descriptors, query.source.features, config.similarity).flatten(1)
    valid = torch.from_numpy(query.source.valid.ravel()).to(similarity.device)
    return similarity.masked_fill(~valid, -torch.inf).argmax(dim=1).cpu().numpy()


def _spread(n: int, rows: np.ndarray, values: np.ndarray, missing: object) -> np.ndarray:
    """``(n, ...)`` array with the values in some rows and ``missing`` in the others."""
    spread = np.full((n, *values.shape[1:]), missing, values.dtype)
    spread[rows] = values
    return spread
