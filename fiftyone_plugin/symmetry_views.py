"""The saved views of pairs with symmetry errors: each filters and sorts by one indexed field, and holds no ids."""

from dataclasses import dataclass

import fiftyone as fo

from ..brain.errors import ConfigError

METHOD = "find_symmetry_errors"


@dataclass(frozen=True)
class SymmetryView:
    """A saved view: the pairs that have a value in a field, the highest first.

    Attributes:
        title: its name, after the key.
        field: short name of the field.
        by_types: whether it takes types of errors.
    """

    title: str
    field: str
    by_types: bool = True


VIEWS = (
    SymmetryView("highest risk first", "risk", by_types=False),
    SymmetryView("swaps, most confident first", "swap_confidence"),
    SymmetryView("phantoms", "phantom_confidence"),
    SymmetryView("inverted pairs", "inversion", by_types=False),
    SymmetryView("label suspects", "label_suspect"),
    SymmetryView("ambiguous but correct", "ambiguity"),
)


def view_name(key: str, title: str) -> str:
    """The name of a view of a key."""
    return f"{key}: {title}"


def check_views(pairs: fo.Dataset, key: str) -> None:
    """Refuses a key whose views are somebody else's.

    Raises:
        ConfigError: see above.
    """
    for view in VIEWS:
        name = view_name(key, view.title)
        if pairs.has_saved_view(name) and not _is_own(pairs, name):
            raise ConfigError(
                f"dataset {pairs.name!r} has a saved view {name!r}, which is not of {METHOD}; rename it, or delete it"
            )


def save_views(pairs: fo.Dataset, key: str, *, judged: bool) -> list[str]:
    """Saves the views of a key, in place of those of an earlier run.

    Args:
        pairs: the pair dataset, whose fields are written.
        key: of the run.
        judged: whether there are types of errors; the views that take them are left out otherwise.

    Returns:
        their names.
    """
    saved = []
    for view in VIEWS:
        name, field = view_name(key, view.title), f"{key}_{view.field}"
        if view.by_types and not judged:
            if pairs.has_saved_view(name):
                pairs.delete_saved_view(name)
            continue
        shown = pairs.match({field: {"$ne": None}}).sort_by(field, reverse=True)
        pairs.save_view(name, shown, description=f"Pairs of {METHOD} {key!r}: {view.title}", overwrite=True)
        saved.append(name)
    return saved


def _is_own(pairs: fo.Dataset, name: str) -> bool:
    return METHOD in (pairs.get_saved_view_info(name).get("description") or "")
