"""The pictures of `quality search` and the boxes of the objects on them."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..brain.errors import ConfigError
from ..brain.foreground.grabcut import GrabCut
from ..brain.images import decode_image
from .manifest import Item, Manifest

# Boxes drawn by hand around the objects of a set whose manifest has none.
PACKAGED_BOXES = Path(__file__).with_name("objid_wild_boxes.json")


@dataclass(frozen=True)
class Picture:
    """One picture with T known objects.

    Attributes:
        item: the image.
        object_ids: T ids.
        boxes: ``(T, 4)`` float64 ``(x1, y1, x2, y2)``, half-open, in pixels of the upright image.
    """

    item: Item
    object_ids: tuple[str, ...]
    boxes: np.ndarray


def read_pictures(manifest: Manifest, boxes_file: str | os.PathLike | None = None) -> tuple[list[Picture], str]:
    """The pictures of a set in the order of its manifest, and one line that says where their boxes come from.

    An item has ``objects`` (``object_id`` and ``bbox`` ``[x, y, width, height]`` in pixels, each), or one ``object_id``
    for the whole picture. The box of the latter is its ``bbox``, or what the file of boxes says, or that of the
    foreground which GrabCut finds. A picture without any object is searched through like the others.

    Args:
        manifest: the set.
        boxes_file: JSON of ``{"boxes": {item id: [x, y, width, height]}}``; None takes the packaged file where it is
            about this set.

    Raises:
        ConfigError: the file or a box cannot be read, or no picture has an object.
    """
    drawn = _read_boxes(manifest, boxes_file)
    pictures, counts = [], {"manifest": 0, "file of boxes": 0, "GrabCut's foreground": 0}
    for item in manifest.items:
        if "objects" in item.extra:
            objects = _objects(item)
            counts["manifest"] += len(objects)
        elif item.object_id is None:
            objects = []
        else:
            origin, box = _single_box(item, drawn)
            objects = [(item.object_id, box)]
            counts[origin] += 1
        boxes = np.array([box for _, box in objects], float).reshape(-1, 4)
        pictures.append(Picture(item, tuple(name for name, _ in objects), boxes))
    if not any(counts.values()):
        raise ConfigError(f"{manifest.folder}: no item has `objects` or an `object_id`; search cannot be measured")
    return pictures, "boxes of objects: " + ", ".join(f"{n} from the {origin}" for origin, n in counts.items() if n)


def _objects(item: Item) -> list[tuple[str, list[float]]]:
    try:
        return [(str(one["object_id"]), _corners(one["bbox"])) for one in item.extra["objects"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"item {item.id!r}: each of its `objects` must have an `object_id` and a `bbox` [x, y, width, height]"
            f" ({error!r})"
        ) from error


def _single_box(item: Item, drawn: Mapping[str, Any]) -> tuple[str, list[float]]:
    """Where the box of an item's only object comes from, and the box."""
    origin, box = ("manifest", item.extra["bbox"]) if item.extra.get("bbox") else ("file of boxes", drawn.get(item.id))
    if box is None:
        return "GrabCut's foreground", _foreground_box(decode_image(item.path))
    try:
        return origin, _corners(box)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"item {item.id!r}: its box must be [x, y, width, height] ({error})") from error


def _read_boxes(manifest: Manifest, boxes_file: str | os.PathLike | None) -> Mapping[str, Any]:
    path = PACKAGED_BOXES if boxes_file is None else Path(boxes_file)
    if boxes_file is None and not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text("utf-8"))
        boxes = {str(name): box for name, box in record["boxes"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"--boxes {path}: not a readable file of {{'boxes': {{item id: [x, y, width, height]}}}} ({error!r})"
        ) from error
    if boxes_file is None and record.get("set") != manifest.name:
        return {}
    return boxes


def _corners(box: Sequence[float]) -> list[float]:
    x, y, width, height = map(float, box)
    if not (width > 0 and height > 0 and np.isfinite([x, y, width, height]).all()):
        raise ValueError(f"{list(box)} has no area")
    return [x, y, x + width, y + height]


def _foreground_box(image: np.ndarray) -> list[float]:
    """The box of what GrabCut takes for foreground; the whole picture where it finds none."""
    mask = GrabCut().masks([image])[0] > 0.5
    if not mask.any():
        return [0.0, 0.0, float(image.shape[1]), float(image.shape[0])]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]
