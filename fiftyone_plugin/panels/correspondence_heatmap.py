"""How similar a keypoint of one image is to every place of the other, and of its mirror image; made when asked for."""

import base64
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import fiftyone as fo
import numpy as np

from ...brain.correspondence.features import ImageFeatures
from ...brain.correspondence.grids import points_to_cells, region_cells
from ...brain.correspondence.matching import KeypointQuery, match_keypoints
from ...brain.correspondence.views import ALL_VIEWS, IDENTITY, MIRROR, View
from ...brain.errors import ConfigError, ImageError, ModelError
from ...brain.geometry import points_to_canvas
from ..correspondence_job import DescribedPicture, DescribedShelf, Picture, comparable
from ..correspondence_labels import PairLabels
from ..correspondence_setup import CorrespondenceOptions
from ..pairs import Member, check_pairs
from ..provenance import file_stamp
from ..stored_matches import run_options
from .correspondence_pages import opened_correspondences, plain, read_labels

# Described pictures that stay in memory: a view takes 11 MB at 60 × 60 × 768, and a pair three of them.
_MAX_BYTES = 200_000_000


def similarity_heatmap(dataset: fo.Dataset, record: Mapping[str, Any], pair_id: str, name: str) -> dict[str, Any]:
    """The similarities of one matched keypoint, computed as the run did.

    Args:
        dataset: of pairs.
        record: of the run.
        pair_id: the pair.
        name: of the keypoint.

    Returns:
        ``name`` and ``partner``, its mirror partner or None; ``notice``, what is to be said of it, or None; ``target``
        and ``mirrored``, the target as it is and mirrored: ``height``, ``width`` and ``values`` (base64 of a byte per
        cell, row by row) of the grid, ``low`` and ``high``, the similarities of bytes 0 and 255, ``content``: left,
        top, width and height of the picture as shares of the grid, ``peak`` and ``rival``: ``place`` (x and y relative
        to the picture that is shown) and ``similarity`` of the match, and of the place of the mirror partner, or None;
        ``rival_is`` says whether that is ``"annotated"`` or where the partner was ``"found"``.

    Raises:
        ConfigError: there is no such match, or a setting cannot be used here.
        ModelError: the model of the run cannot be had.
        ImageError: a picture cannot be read.
    """
    opened = opened_correspondences(dataset, record, pair_id, {})
    matches = {one["name"]: one for one in opened["matches"]}
    if name not in matches:
        raise ConfigError(f"pair {pair_id!r} has no match of a keypoint {name!r} any more; open the pair again")
    match, row = matches[name], read_labels(dataset, record, pair_id).row
    describer = _describer(_options(record["config"]))
    view = _view(opened["pair"]["view"]) if match["handed_over"] else IDENTITY
    source, targets = describer.pictures(row.source, row.target, view)
    place = _asked(match, matches, view)
    point = view.points(np.array([place]) * _size(source, view), _image_hw(source, view))
    region = _region(dataset, record["config"], row.target, targets[IDENTITY])
    rival, rival_is = _rival(match, matches)
    notice = describer.notice(record["config"]["features"])
    maps = {
        "target": _map(source, targets[IDENTITY], point, describer.options, region, rival),
        "mirrored": _map(source, targets[MIRROR], point, describer.options, None, _mirrored(rival)),
    }
    return {"name": name, "partner": match["partner"], "notice": notice, "rival_is": rival_is, **maps}


@dataclass(frozen=True)
class _Describer:
    """The model of a run, and the pictures that it has described lately."""

    options: CorrespondenceOptions
    features: Mapping[str, Any]
    shelf: DescribedShelf
    lock: threading.Lock

    def pictures(
        self, source: Member, target: Member, view: View
    ) -> tuple[ImageFeatures, Mapping[View, ImageFeatures]]:
        """The source in a view, and the target as it is and mirrored."""
        one, other = (Picture(member.filepath, file_stamp(member.filepath), member.id) for member in (source, target))
        # Beside a second network features depend on all views of the pair; without, only on what is shown.
        views = {view} if self.options.diffusion is None else {view, *self.options.views}
        wanted = {one: set(views)}
        wanted[other] = wanted.get(other, set()) | {IDENTITY, MIRROR}
        # Requests of the App run in threads of their own.
        with self.lock:
            found = self.shelf.fetch(wanted)
        first, second = _described(found[one]), _described(found[other])
        own, others = comparable(
            {turned: first[turned] for turned in sorted(views, key=lambda turned: turned.name)},
            {turned: second[turned] for turned in (IDENTITY, MIRROR)},
        )
        return own[view], others

    def notice(self, features: Mapping[str, Any]) -> str | None:
        """Whether the model is not quite that of the run."""
        if features.get("weights_hash") == self.features["weights_hash"]:
            return None
        return f"The model {self.features['backbone']!r} has changed since the run, so similarities may differ"


def _described(found: DescribedPicture | str) -> Mapping[View, ImageFeatures]:
    """A picture in its views.

    Raises:
        ImageError: it cannot be read.
    """
    if isinstance(found, str):
        raise ImageError(found)
    return found.views


@lru_cache(maxsize=1)
def _describer(options: CorrespondenceOptions) -> _Describer:
    try:
        extractor = options.load()
    except (ConfigError, ModelError) as error:
        raise ModelError(f"similarities take the model of the run, {options.model!r}: {error}") from error
    pool = ThreadPoolExecutor(2, thread_name_prefix="selfsame-heatmap")
    shelf = DescribedShelf(extractor, pool, cached=True, max_bytes=_MAX_BYTES)
    return _Describer(options, extractor.settings(), shelf, threading.Lock())


def _options(config: Mapping[str, Any]) -> CorrespondenceOptions:
    """The options of a run, on whatever device there is."""
    features = config["features"]
    return CorrespondenceOptions(
        **run_options(config)
        | {"model": features.get("backbone"), "size": features.get("size"), "cache_tokens": True}
        | {"precision": features.get("precision", "auto"), "device": "auto"}
    )


def _view(name: str | None) -> View:
    return next((view for view in ALL_VIEWS if view.name == name), IDENTITY)


def _asked(match: Mapping[str, Any], matches: Mapping[str, Any], view: View) -> list[float]:
    """The place in the source that was looked for: in a mirrored one, that of the partner."""
    partner = matches.get(match["partner"]) if view.mirrored else None
    return (match if partner is None else partner)["source"]


def _rival(match: Mapping[str, Any], matches: Mapping[str, Any]) -> tuple[list[float] | None, str | None]:
    """The place of the mirror partner in the target, and how it is known."""
    partner = matches.get(match["partner"])
    if partner is None:
        return None, None
    if partner["truth"] is not None:
        return partner["truth"], "annotated"
    return partner["target"], "found"


def _mirrored(place: list[float] | None) -> list[float] | None:
    return None if place is None else [1 - place[0], place[1]]


def _region(
    dataset: fo.Dataset, config: Mapping[str, Any], target: Member, described: ImageFeatures
) -> np.ndarray | None:
    """The cells that may be found: those of the object, for matches without keypoints where it is marked."""
    foreground = _options(config).foreground_field
    if config["keypoints"] is not None or foreground is None:
        return None
    labels = PairLabels(dataset, check_pairs(dataset), None, None, foreground)
    mask = labels.read_mask(target.id, described.geometry.image_hw)
    region = None if mask is None else region_cells(mask, described.geometry)
    return region if region is not None and region.any() else None


def _map(
    source: ImageFeatures,
    target: ImageFeatures,
    point: np.ndarray,
    options: CorrespondenceOptions,
    region: np.ndarray | None,
    rival: list[float] | None,
) -> dict[str, Any]:
    config = replace(options.match_config, round_trip=False, keep_similarity=True)
    found = match_keypoints([KeypointQuery(source, target, point, region)], config)[0]
    assert found.maps is not None
    similarity, geometry = found.maps[0], target.geometry
    known = similarity[np.isfinite(similarity)]
    low, high = float(known.min()), float(known.max())
    scaled = (np.maximum(similarity, low) - low) * (255 / max(high - low, 1e-6))
    height, width = geometry.canvas_hw
    top, left, rows, columns = geometry.content
    size = np.array(geometry.image_hw[::-1], float)
    return {
        "height": similarity.shape[0],
        "width": similarity.shape[1],
        "values": base64.b64encode(np.rint(scaled).astype(np.uint8).tobytes()).decode(),
        "low": plain(low),
        "high": plain(high),
        "content": [left / width, top / height, columns / width, rows / height],
        "peak": {
            "place": [plain(float(value)) for value in found.points[0] / size],
            "similarity": plain(float(found.similarity[0])),
        },
        "rival": None if rival is None else _at(similarity, target, np.array(rival) * size, rival),
    }


def _at(similarity: np.ndarray, target: ImageFeatures, point: np.ndarray, place: list[float]) -> dict[str, Any]:
    """The similarity of the cell that a point of the picture lies in."""
    geometry = target.geometry
    cells = points_to_cells(points_to_canvas(point[None], geometry), geometry.grid_hw, geometry.patch)
    return {"place": place, "similarity": plain(float(similarity.ravel()[cells[0]]))}


def _image_hw(described: ImageFeatures, view: View) -> tuple[int, int]:
    """Height and width of the picture before it was turned."""
    height, width = described.geometry.image_hw
    return (width, height) if view.quarter_turns % 2 else (height, width)


def _size(described: ImageFeatures, view: View) -> np.ndarray:
    height, width = _image_hw(described, view)
    return np.array([width, height], float)
