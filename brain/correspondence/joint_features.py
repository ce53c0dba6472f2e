"""Features that mean something only beside those of certain other pictures: principal components of all of them.

Source: Zhang et al., "A Tale of Two Features: Stable Diffusion Complements DINO for Zero-Shot Semantic Correspondence"
(NeurIPS 2023), which takes the components of the two images of a pair.
"""

from collections.abc import Sequence
from dataclasses import replace

from ..errors import ConfigError
from .features import ImageFeatures
from .fusion import fuse, gather_layers, shared_components, unit_features

# Directions per layer, as published.
COMPONENTS = 256


def project_jointly(
    described: Sequence[ImageFeatures], components: int = COMPONENTS, *, renormalise: bool = True
) -> list[ImageFeatures]:
    """The features of pictures in the principal components of all of them.

    With a second network its layers are projected, and the backbone's features join them as they are; without, the
    backbone's tokens are projected. See :func:`.fusion.shared_components`.

    All views of a pair that are compared with each other must be given at once. Directions of some of them would keep
    more of what sets those apart than of what sets the others apart, so that the others would seem nearer than they
    are, and a mirror image would win too often.

    Args:
        described: by an extractor whose configuration has ``components``.
        components: directions per layer.
        renormalise: as in :func:`.fusion.fuse`.

    Returns:
        the pictures in the same order, ready to be compared with each other and with nothing else.

    Raises:
        ConfigError: the features were described without ``components``, or some of them by another extractor.
    """
    layers = [one.layers or _tokens(one) for one in described]
    projected = shared_components(layers, components)
    ready = []
    for one, features in zip(described, projected, strict=True):
        if one.layers:
            size_hw = (one.features.shape[0], one.features.shape[1])
            features = fuse(gather_layers([features], size_hw), one.features, renormalise=renormalise)
        else:
            features = unit_features(features)
        ready.append(replace(one, features=features, tokens=None, layers=()))
    return ready


def _tokens(described: ImageFeatures) -> tuple:
    if described.tokens is None:
        raise ConfigError(
            "principal components need the tokens: describe the images with FeatureConfig(components=...)"
        )
    return (described.tokens,)
