"""The half of FFA that needs no device: an image and its mask become a canvas and the coverage of each patch."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from .ffa_config import FFAConfig
from .ffa_weights import as_soft_mask, cut_out, released_coverage, released_cut_out
from .foreground.base import PixelForeground
from .geometry import Geometry, image_to_canvas, mask_to_patches


@dataclass(frozen=True)
class View:
    """A picture, or the part of one that shows an object, and what may count as foreground in it.

    Attributes:
        image: ``(H, W, 3)`` uint8.
        geometry: its placement on the canvas.
        window: ``(h, w)`` the largest coverage per patch that a foreground may have (excludes padding, and for an
            object what lies outside its box or belongs to another object).
        rescue: ``(h, w)`` coverage to use where the foreground is empty.
        content_hash: key of the picture in the token cache; None where its tokens are not to be cached.
        canvas: the picture on its canvas, where several views share one.
    """

    image: np.ndarray
    geometry: Geometry
    window: np.ndarray
    rescue: np.ndarray
    content_hash: str | None = None
    canvas: torch.Tensor | None = None

    def original(self) -> torch.Tensor:
        """The untouched picture on its canvas, ``(3, H, W)`` float32."""
        return image_to_canvas(self.image, self.geometry) if self.canvas is None else self.canvas


@dataclass(frozen=True)
class PreparedImage:
    """One vector to be computed: placed on its canvas, waiting for the device.

    Attributes:
        geometry: placement on the canvas.
        decoded_hw: height and width at which the picture was decoded, maybe at reduced scale; tokens depend on it.
        canvas: ``(3, H, W)`` float32; None until the foreground that is to be cut out is known. Vectors that share one
            canvas object share one forward pass.
        coverage: ``(h, w)`` share of foreground per patch; None where a foreground method has yet to find it.
        window, rescue: as in :class:`View`.
        fallback: whether ``coverage`` is the rescue.
        content_hash: as in :class:`View`; None where the canvas is a cut-out.
        waiting: the view, kept only while a pixel foreground has yet to look at it.
    """

    geometry: Geometry
    decoded_hw: tuple[int, int]
    canvas: torch.Tensor | None
    coverage: np.ndarray | None
    window: np.ndarray
    rescue: np.ndarray
    fallback: bool = False
    content_hash: str | None = None
    waiting: View | None = None

    @property
    def group_key(self) -> tuple[int, int]:
        """Only images with equal keys (canvas height and width) share a batch."""
        return self.geometry.canvas_hw


def prepare_view(
    view: View, mask: np.ndarray | None, config: FFAConfig, foreground: PixelForeground | None, from_tokens: bool
) -> PreparedImage:
    """Places a view on its canvas and settles its coverage as far as that needs no device.

    Args:
        view: the picture.
        mask: ``(H', W')`` foreground of the view at any scale, or None to let the foreground method find it.
        config: how vectors are made.
        foreground: the method that finds masks in pixels, if there is one.
        from_tokens: whether a missing mask is found in the tokens.

    Raises:
        ConfigError: the mask cannot be used.
    """
    if mask is not None:
        return apply_mask(view, as_soft_mask(mask), config)
    # The class token of the untouched picture does not depend on any mask: spare the work of finding one.
    wanted = config.pooling == "patch" or config.encode == "cutout"
    if foreground is not None and wanted:
        if foreground.in_worker:
            return apply_mask(view, foreground.masks([view.image])[0], config)
        canvas = view.original() if config.encode == "original" else None
        return replace(_prepared(view, canvas, None), waiting=replace(view, canvas=canvas))
    return _prepared(view, view.original(), None if from_tokens and wanted else view.window)


def apply_mask(view: View, mask: np.ndarray, config: FFAConfig) -> PreparedImage:
    """Settles the canvas and the coverage of a view whose mask is known.

    Args:
        view: the picture.
        mask: ``(H', W')`` float32 in [0, 1], of the view at any scale.
        config: how vectors are made.
    """
    if config.released_mask:
        return _apply_mask_as_released(view, mask, config)
    coverage = np.minimum(mask_to_patches(mask, view.geometry), view.window)
    if not coverage.any():
        # Nothing to cut out: a black canvas would give all such pictures one and the same vector.
        return replace(_prepared(view, view.original(), view.rescue), fallback=True)
    if config.encode == "original":
        return _prepared(view, view.original(), coverage)
    canvas = image_to_canvas(cut_out(view.image, mask), view.geometry)
    return replace(_prepared(view, canvas, coverage), content_hash=None)


def _apply_mask_as_released(view: View, mask: np.ndarray, config: FFAConfig) -> PreparedImage:
    canvas = image_to_canvas(released_cut_out(view.image, mask), view.geometry)
    coverage = released_coverage(canvas, view.geometry)
    fallback = not coverage.any()
    coverage = view.rescue if fallback else coverage
    if config.encode == "original":
        return replace(_prepared(view, view.original(), coverage), fallback=fallback)
    return replace(_prepared(view, canvas, coverage), fallback=fallback, content_hash=None)


def _prepared(view: View, canvas: torch.Tensor | None, coverage: np.ndarray | None) -> PreparedImage:
    return PreparedImage(
        geometry=view.geometry,
        decoded_hw=(view.image.shape[0], view.image.shape[1]),
        canvas=canvas,
        coverage=coverage,
        window=view.window,
        rescue=view.rescue,
        content_hash=view.content_hash,
    )
