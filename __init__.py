"""Selfsame: same-object search, duplicates and correspondences for FiftyOne.

This file is three entrances to one house and holds nothing else: FiftyOne's plugin loader calls `register`,
FiftyOne's model zoo calls `download_model` / `load_model` / `resolve_input`, and Python users write
`fiftyone_selfsame.compute_ffa(view)`. FiftyOne executes it anew on every request, so all imports are inside.
"""


def register(plugin):
    """Registers every operator and panel with FiftyOne; called by its plugin loader."""
    from .operators import OPERATORS

    for operator in OPERATORS:
        plugin.register(operator)


def download_model(model_name, model_path):
    """Fetches the weights of a zoo model; called by ``fiftyone.zoo.load_zoo_model``."""
    from .fiftyone_plugin import zoo

    zoo.download_model(model_name, model_path)


def load_model(model_name, model_path, **kwargs):
    """Loads a zoo model as a FiftyOne model; called by ``fiftyone.zoo.load_zoo_model``."""
    from .fiftyone_plugin import zoo

    return zoo.load_model(model_name, model_path, **kwargs)


def resolve_input(model_name, ctx):
    """Describes the options of a zoo model for FiftyOne's own operators."""
    from .fiftyone_plugin import zoo

    return zoo.resolve_input(model_name, ctx)


def __getattr__(name):
    """Plain functions, one per operator: ``fiftyone_selfsame.compute_ffa(view, ...)``."""
    if name.startswith("_"):
        raise AttributeError(name)
    from .fiftyone_plugin import api

    if name not in api.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; functions: {', '.join(api.__all__)}")
    return getattr(api, name)
