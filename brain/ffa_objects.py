"""Several objects per image: what the encoder sees of each, its mask there, and who owns contested patches.

There are two routes: average the tokens of the whole image per object, or encode a crop of each object (as NIDS-Net
does, which also averages over the patches that are more than half covered).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from .errors import ConfigError, ImageError
from .ffa_prepare import View
from .ffa_weights import as_soft_mask, content_coverage
from .foreground.given import instance_mask
from .geometry import Geometry, ResizeMode, image_to_canvas, mask_to_patches, plan_geometry

ObjectRoute = Literal["crop", "image"]
OBJECT_ROUTES: tuple[ObjectRoute, ...] = ("crop", "image")

# A crop shows this share of the box's width and height beyond each side.
CROP_MARGIN = 0.125

_AXIS = (np.arange(256) + 0.5) / 128 - 1
_DISC = _AXIS[:, None] ** 2 + _AXIS[None, :] ** 2 <= 1


@dataclass(frozen=True)
class Objects:
    """The objects of one image.

    Attributes:
        boxes: ``(N, 4)`` float boxes ``(x, y, width, height)`` in pixels.
        masks: per object None or its mask, of the size of the image or, at any scale, of its box.
        image_hw: height and width of the image.

    Raises:
        ConfigError: there is not one mask, or None, per box.
        ImageError: a box is not finite or has no part inside the image.
    """

    boxes: np.ndarray
    masks: Sequence[np.ndarray | None]
    image_hw: tuple[int, int]

    def __post_init__(self) -> None:
        if len(self.boxes) != len(self.masks):
            raise ConfigError(f"{len(self.boxes)} boxes but {len(self.masks)} masks; give one mask, or None, per box")
        height, width = self.image_hw
        for index, (x, y, w, h) in enumerate(self.boxes):
            # NaN fails every comparison and infinity the last one.
            if not (w > 0 and h > 0 and -w < x < width and -h < y < height and w * h < np.inf):
                raise ImageError(
                    f"object {index}: the box x={x:g}, y={y:g}, width={w:g}, height={h:g} (pixels) has no part inside"
                    f" the {width}×{height} image; repair or remove the label"
                )


@dataclass(frozen=True)
class Frame:
    """The part of an image that the encoder sees: its place in pixels and its placement on the canvas."""

    left: int
    top: int
    width: int
    height: int
    geometry: Geometry

    def cut(self, image: np.ndarray) -> np.ndarray:
        """This part of an array ``(H, W, ...)`` of the image's size."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]

    def mask(self, box: np.ndarray, mask: np.ndarray | None, image_hw: tuple[int, int]) -> np.ndarray:
        """``(height, width)`` mask of an object in this part; of its whole box where the object has none."""
        if mask is not None and mask.shape == tuple(image_hw):
            return as_soft_mask(self.cut(mask))
        return instance_mask(box - (self.left, self.top, 0, 0), mask, (self.height, self.width))

    def coverage(self, box: np.ndarray, mask: np.ndarray | None, image_hw: tuple[int, int]) -> np.ndarray:
        """``(h, w)`` share of each patch that an object covers; arguments as for :meth:`mask`."""
        return mask_to_patches(self.mask(box, mask, image_hw), self.geometry)


def object_views(
    image: np.ndarray,
    objects: Objects,
    *,
    route: ObjectRoute,
    size: int,
    patch: int,
    resize: ResizeMode,
    exclusive: bool = False,
    content_hash: str | None = None,
) -> list[tuple[View, np.ndarray | None]]:
    """The view of each object and its mask in that view (None where the object has none).

    Args:
        image: ``(H, W, 3)`` uint8.
        objects: the objects on it.
        route: ``"crop"`` gives each object a letterboxed crop, ``"image"`` gives all the whole image.
        size, patch, resize: canvas as for :func:`plan_geometry`; ``resize`` concerns the whole image only.
        exclusive: give a patch that several objects cover to the one that covers most of it.
        content_hash: key of the whole image in the token cache.

    Raises:
        ConfigError: the route is unknown, or the canvas is impossible.
    """
    if route not in OBJECT_ROUTES:
        raise ConfigError(f"route={route!r} is unknown; use one of {', '.join(OBJECT_ROUTES)}")
    if route == "crop":
        crops = [_crop(box, objects.image_hw, size, patch) for box in objects.boxes]
        return [
            _view(np.ascontiguousarray(crop.cut(image)), objects, index, crop, exclusive)
            for index, crop in enumerate(crops)
        ]
    geometry = plan_geometry(objects.image_hw, size, patch, resize)
    whole = Frame(0, 0, objects.image_hw[1], objects.image_hw[0], geometry)
    canvas = image_to_canvas(image, geometry)
    views = [_view(image, objects, index, whole, exclusive) for index in range(len(objects.boxes))]
    return [(replace(view, canvas=canvas, content_hash=content_hash), mask) for view, mask in views]


def _crop(box: np.ndarray, image_hw: tuple[int, int], size: int, patch: int) -> Frame:
    x, y, w, h = box
    left, top = (max(0, int(np.floor(start - CROP_MARGIN * length))) for start, length in ((x, w), (y, h)))
    right = min(image_hw[1], int(np.ceil(x + w + CROP_MARGIN * w)))
    bottom = min(image_hw[0], int(np.ceil(y + h + CROP_MARGIN * h)))
    geometry = plan_geometry((bottom - top, right - left), size, patch, "letterbox")
    return Frame(left, top, right - left, bottom - top, geometry)


def _view(
    picture: np.ndarray, objects: Objects, index: int, frame: Frame, exclusive: bool
) -> tuple[View, np.ndarray | None]:
    box, mask, image_hw = objects.boxes[index], objects.masks[index], objects.image_hw
    own = frame.coverage(box, mask, image_hw)
    window = content_coverage(frame.geometry) if mask is not None else own
    if exclusive:
        window = window * _owned(objects, index, frame)
    rescue = own if mask is not None and own.any() else _ellipse(box, frame, image_hw)
    view = View(picture, frame.geometry, window, rescue)
    return view, None if mask is None else frame.mask(box, mask, image_hw)


def _ellipse(box: np.ndarray, frame: Frame, image_hw: tuple[int, int]) -> np.ndarray:
    """``(h, w)`` coverage of the ellipse inscribed in the visible part of a box; of a sliver, the whole of it."""
    left, top = np.maximum(box[:2], 0)
    right, bottom = np.minimum(box[:2] + box[2:], (image_hw[1], image_hw[0]))
    visible = np.array([left, top, right - left, bottom - top])
    ellipse = frame.coverage(visible, _DISC, image_hw)
    return ellipse if ellipse.any() else frame.coverage(visible, None, image_hw)


def _owned(objects: Objects, index: int, frame: Frame) -> np.ndarray:
    """``(h, w)`` bool: the patches of which no other object covers more; of equals the first has it."""
    claims = np.stack(
        [frame.coverage(*one, objects.image_hw) for one in zip(objects.boxes, objects.masks, strict=True)]
    )
    return claims.argmax(0) == index
