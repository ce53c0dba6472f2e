"""Where a search found the object: overlap of boxes, localisation of hits, and recall of regions.

Boxes are ``(x1, y1, x2, y2)`` in pixels, half-open.
"""

from collections.abc import Sequence

import numpy as np

from ..errors import ConfigError


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes; 0 where neither box has an area.

    Args:
        boxes: ``(N, 4)`` boxes ``(x1, y1, x2, y2)``.
        others: ``(M, 4)`` likewise.

    Returns:
        ``(N, M)`` float64 in [0, 1].

    Raises:
        ConfigError: an array has another shape, or a box ends before it begins or is not finite.
    """
    boxes, others = _as_boxes(boxes, "boxes"), _as_boxes(others, "others")
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    intersection = np.clip(high - low, 0, None).prod(-1)
    areas = [(ones[:, 2:] - ones[:, :2]).prod(-1) for ones in (boxes, others)]
    union = areas[0][:, None] + areas[1][None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def hit_iou(box: np.ndarray | None, truths: np.ndarray) -> float:
    """How well the region that a search returned for an image locates the object.

    Args:
        box: ``(4,)`` box of the image's best region; None where the image has no region, which counts 0.
        truths: ``(T, 4)`` the boxes of the object in that image, T > 0; the best matching one counts.
    """
    return 0.0 if box is None else float(box_iou(np.asarray(box)[None], truths).max())


def mean_iou_of_hits(
    ious: Sequence[np.ndarray], ranks: Sequence[np.ndarray] | None = None, k: int | None = None
) -> float:
    """mIoU of a search: per query the mean over its relevant images, then the mean over queries.

    The paper (arXiv:2506.16745, Table IV) does not define its mIoU; this is one reading. With ``k`` only relevant
    images among the first k of the list enter; a query that has none there counts 0.

    Args:
        ious: per query ``(R,)`` the :func:`hit_iou` of each relevant image.
        ranks: per query ``(R,)`` places of these images in the list, from 1; needed with ``k``. An image that the list
            lacks has place ``inf``.
        k: cut-off; None takes all relevant images.

    Returns:
        a value in [0, 1]; NaN where there is no query.

    Raises:
        ConfigError: ``k`` is not positive or comes without ranks, or a query has no relevant image.
    """
    if k is not None and (k < 1 or ranks is None):
        raise ConfigError(f"k={k} must be at least 1 and come with ranks")
    if any(len(values) == 0 for values in ious):
        raise ConfigError("a query has no relevant image; leave it out")
    if k is not None and ranks is not None:
        ious = [np.asarray(values)[np.asarray(places) <= k] for values, places in zip(ious, ranks, strict=True)]
    per_query = [float(np.mean(values)) if len(values) else 0.0 for values in ious]
    return float(np.mean(per_query)) if per_query else float("nan")


def region_recall(
    regions: Sequence[np.ndarray], truths: Sequence[np.ndarray], thresholds: Sequence[float] = (0.5,)
) -> np.ndarray:
    """Share of the annotated objects for which some region of their image reaches an IoU (of boxes).

    Args:
        regions: per image ``(R, 4)`` the boxes of its regions.
        truths: per image ``(T, 4)`` the boxes of its objects.
        thresholds: L values of the IoU, reached at equality.

    Returns:
        ``(L,)`` float64 shares; NaN where there is no object at all.

    Raises:
        ConfigError: there are not as many entries in ``regions`` as in ``truths``, or boxes are broken.
    """
    if len(regions) != len(truths):
        raise ConfigError(f"regions of {len(regions)} images but objects of {len(truths)}; give both per image")
    best = [box_iou(found, true).max(0, initial=0.0) for found, true in zip(regions, truths, strict=True)]
    reached = np.concatenate([np.empty(0), *best])
    if not len(reached):
        return np.full(len(thresholds), np.nan)
    return (reached[None, :] >= np.asarray(thresholds, float)[:, None]).mean(1)


def _as_boxes(boxes: np.ndarray, name: str) -> np.ndarray:
    boxes = np.asarray(boxes, np.float64)
    if boxes.size == 0:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ConfigError(f"{name} has shape {boxes.shape}; boxes must be (N, 4)")
    if not (np.isfinite(boxes).all() and (boxes[:, 2:] >= boxes[:, :2]).all()):
        raise ConfigError(f"{name}: a box is not finite or ends before it begins; boxes are (x1, y1, x2, y2)")
    return boxes
