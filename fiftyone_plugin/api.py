"""The plain functions of the package, one per operator; imported on first use, because they bring in torch."""

from importlib import import_module

# Function name → the module of this package that defines it.
_HOMES = {
    "compute_ffa": "compute",
    "compute_foreground": "compute",
    "find_duplicates": "duplicates",
    "find_exact_duplicates": "exact_duplicates",
    "regroup_duplicates": "duplicates",
    "show_duplicate_groups": "duplicate_views",
    "tag_duplicates": "duplicate_tags",
    "undo_duplicate_tags": "duplicate_tags",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __package__), name)
