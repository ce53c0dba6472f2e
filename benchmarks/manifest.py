"""Reading a folder of evaluation images with its ``manifest.json``."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..brain.errors import ConfigError


@dataclass(frozen=True)
class Item:
    """One image of an evaluation set.

    Attributes:
        id: what pairs refer to: the manifest's ``id``, else the file name without its ending.
        path: the image file.
        mask_path: the file of its foreground mask, where the set has one.
        object_id: which object it shows; None where the set does not say.
        category: kind of object; None where the set does not say.
        group: part of the protocol (``pose``, ``in-the-wild`` ...), the manifest's ``group`` or ``part``; None where
            the set does not say.
        extra: the whole entry as it stands in the manifest.
    """

    id: str
    path: Path
    mask_path: Path | None
    object_id: str | None
    category: str | None
    group: str | None
    extra: Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """An evaluation set.

    Attributes:
        name: the set's name.
        folder: where its manifest lies.
        items: its images, in the order of the manifest.
        pairs: labelled pairs (``a``, ``b`` and what is known of them) as they stand in the manifest, but an image that
            is named by its path or file name is named by its id.
        extra: the whole manifest as it stands.
    """

    name: str
    folder: Path
    items: tuple[Item, ...]
    pairs: tuple[Mapping[str, Any], ...]
    extra: Mapping[str, Any]


def load_manifest(folder: str | os.PathLike, *, require: Sequence[str] = ()) -> Manifest:
    """Reads ``manifest.json`` of a folder; image paths are relative to the folder.

    Args:
        folder: the folder, or the manifest file itself.
        require: attributes of :class:`Item` that no item may lack (``"object_id"``, ``"mask_path"`` ...).

    Raises:
        ConfigError: there is no manifest, it cannot be read, an image is missing, or an item lacks what is required.
    """
    path = Path(folder)
    path = path / "manifest.json" if path.is_dir() else path
    if not path.is_file():
        raise ConfigError(f"--data {folder}: no manifest.json there; give a folder that holds one")
    try:
        record = json.loads(path.read_text("utf-8"))
        items = tuple(_item(entry, path.parent) for entry in record["items"])
        ids = _ids_by_name(items)
        pairs = tuple(
            {**pair, **{end: ids.get(pair[end], pair[end]) for end in ("a", "b")}} for pair in record.get("pairs", ())
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: not a manifest with a list of `items` that have a `path`, and `pairs`, if any, of `a` and `b`"
            f" ({error!r})"
        ) from error
    for item in items:
        _check(item, require, path)
    return Manifest(record.get("name", path.parent.name), path.parent, items, pairs, record)


def _item(entry: Mapping[str, Any], folder: Path) -> Item:
    image = entry["path"] if "path" in entry else entry["image"]
    mask = entry.get("mask")
    return Item(
        id=str(entry.get("id", Path(image).stem)),
        path=folder / image,
        mask_path=folder / mask if mask else None,
        object_id=_text(entry.get("object_id")),
        category=_text(entry.get("category")),
        group=_text(entry.get("group", entry.get("part"))),
        extra=entry,
    )


def _ids_by_name(items: Sequence[Item]) -> dict[str, str]:
    """Id of each item by what a pair may call it: its id before its path, that before a file name that is its alone."""
    files = Counter(item.path.name for item in items)
    ids = {item.path.name: item.id for item in items if files[item.path.name] == 1}
    ids |= {item.extra.get("path", item.extra.get("image")): item.id for item in items}
    return ids | {item.id: item.id for item in items}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _check(item: Item, require: Sequence[str], manifest: Path) -> None:
    for attribute in require:
        if getattr(item, attribute) is None:
            raise ConfigError(f"{manifest}: item {item.id!r} has no `{attribute}`, which this benchmark needs")
    if not item.path.is_file():
        raise ConfigError(f"{manifest}: the image of item {item.id!r} is missing: {item.path}")
