"""Selfsame: same-object search, duplicates and correspondences for FiftyOne.

This file is three entrances to one house and holds nothing else: FiftyOne's plugin loader calls `register`,
FiftyOne's model zoo calls `download_model` / `load_model` / `resolve_input`, and Python users write
`fiftyone_selfsame.compute_ffa(view)`. FiftyOne executes it anew on every request, so all imports are inside.
"""


def register(plugin):
    """Registers every operator and panel with FiftyOne; called by its plugin loader."""
    for operator in _module("operators").OPERATORS:
        plugin.register(operator)
    for panel in _module("fiftyone_plugin.panels").PANELS:
        plugin.register(panel)


def download_model(model_name, model_path):
    """Fetches the weights of a zoo model; called by ``fiftyone.zoo.load_zoo_model``."""
    _module("fiftyone_plugin.zoo").download_model(model_name, model_path)


def load_model(model_name, model_path, **kwargs):
    """Loads a zoo model as a FiftyOne model; called by ``fiftyone.zoo.load_zoo_model``."""
    return _module("fiftyone_plugin.zoo").load_model(model_name, model_path, **kwargs)


def resolve_input(model_name, ctx):
    """Describes the options of a zoo model for FiftyOne's own operators."""
    return _module("fiftyone_plugin.zoo").resolve_input(model_name, ctx)


def _module(name):
    """A module of this package. FiftyOne executes this file under names of its own; where the package is installed from
    this very folder, the installed one serves, so that a process has one cache of models and one `ConfigError`.
    """
    from importlib import import_module
    from os.path import realpath

    try:
        import fiftyone_selfsame

        is_here = realpath(fiftyone_selfsame.__file__ or "") == realpath(__file__)
    except ImportError:
        is_here = False
    return import_module(f".{name}", "fiftyone_selfsame" if is_here else __name__)


def __getattr__(name):
    """Plain functions, one per operator: ``fiftyone_selfsame.compute_ffa(view, ...)``."""
    if name.startswith("_"):
        raise AttributeError(name)
    from .fiftyone_plugin import api

    if name not in api.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; functions: {', '.join(api.__all__)}")
    return getattr(api, name)
