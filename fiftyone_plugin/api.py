"""The plain functions of the package, one per operator; imported on first use, because they bring in torch."""

from importlib import import_module

# Function name → the module of this package that defines it.
_HOMES = {
    "compute_ffa": "compute",
    "compute_foreground": "compute",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __package__), name)
