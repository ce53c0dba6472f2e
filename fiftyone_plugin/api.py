"""What the package offers to Python: a function per operator, and the FFA model; imported on first use with torch."""

from importlib import import_module

# Name → the module of this package that defines it.
_HOMES = {
    "FFAModel": "model",
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
