"""Which way an object faces, by comparison with template pictures of known poses.

Source: Zhang et al., "Telling Left from Right" (CVPR 2024), who compare a picture with sets of four templates each
(back, front, left and right) by the instance matching distance and let the sets vote.
"""

from collections.abc import Sequence

import numpy as np

from ..errors import ConfigError
from .features import ImageFeatures
from .instance_distance import Reduction, instance_distance

POSES = ("back", "front", "left", "right")


def template_distances(
    picture: ImageFeatures, sets: Sequence[Sequence[ImageFeatures]], *, reduce: Reduction = "mean"
) -> np.ndarray:
    """How far a picture is from each template, its own mask alone deciding what counts.

    Args:
        picture: the described picture; the cells of its foreground are looked for.
        sets: per set one described template per pose.
        reduce: see :func:`.instance_distance.instance_distance`.

    Returns:
        ``(sets, poses)`` float64.

    Raises:
        ConfigError: the sets have unequal numbers of templates.
    """
    if not sets or len({len(templates) for templates in sets}) != 1:
        raise ConfigError("every set of templates must have one template per pose, in the same order")
    region = picture.foreground()
    return np.array(
        [
            [
                instance_distance(picture.features, template.features, region, template.valid, reduce=reduce)
                for template in templates
            ]
            for templates in sets
        ]
    )


def four_way_pose(distances: np.ndarray) -> np.ndarray:
    """The pose that most sets find nearest.

    Args:
        distances: ``(..., sets, 4)`` in the order of :data:`POSES`.

    Returns:
        ``(...)`` int64 numbers of poses; of equally many votes the first pose counts.

    Raises:
        ConfigError: the last axis is not 4.
    """
    votes = _checked(distances).argmin(axis=-1)
    counts = (votes[..., None] == np.arange(len(POSES))).sum(axis=-2)
    return counts.argmax(axis=-1)


def two_way_pose(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two decisions by majority: front or back, and right or left.

    Args:
        distances: ``(..., sets, 4)`` in the order of :data:`POSES`.

    Returns:
        ``(...)`` bool whether the front is nearer than the back in more than half of the sets, and whether the right
        side is nearer than the left.

    Raises:
        ConfigError: the last axis is not 4.
    """
    checked = _checked(distances)
    front = checked[..., POSES.index("front")] < checked[..., POSES.index("back")]
    right = checked[..., POSES.index("right")] < checked[..., POSES.index("left")]
    return 2 * front.sum(axis=-1) > front.shape[-1], 2 * right.sum(axis=-1) > right.shape[-1]


def _checked(distances: np.ndarray) -> np.ndarray:
    distances = np.asarray(distances)
    if distances.ndim < 2 or distances.shape[-1] != len(POSES):
        raise ConfigError(f"distances of shape {distances.shape} cannot be used; give (sets, {len(POSES)})")
    return distances
