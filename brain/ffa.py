"""Foreground feature averaging (FFA): one vector per image or object, the mean of its foreground patch tokens.

Source: "Are These the Same Apple? Comparing Images Based on Object Intrinsics" (arXiv 2311.00750) and its public
release. The vector is the average of the encoder's patch tokens, after the final norm, over the patches that the
foreground covers by more than half; two images are compared by the cosine of their vectors.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
import torch

from .backbones.base import Backbone, Tokens
from .errors import ConfigError, ModelError
from .ffa_config import PRESETS, RELEASED_NAMES, FFAConfig, FFAPreset, ffa_preset
from .ffa_objects import ObjectRoute, Objects, object_views
from .ffa_prepare import PreparedImage, View, apply_mask, prepare_view
from .ffa_weights import content_coverage, patch_weights
from .foreground.base import PixelForeground, TokenForeground
from .geometry import plan_geometry
from .token_cache import token_key

__all__ = [
    "PRESETS",
    "RELEASED_NAMES",
    "FFAConfig",
    "FFAExtractor",
    "FFAPreset",
    "FFAResult",
    "PreparedImage",
    "ffa_preset",
]

# A JPEG decoded at half, quarter or eighth scale stays at least this many times as large as the canvas.
_DECODE_FACTOR = 2

# Most objects per forward pass when a caller hands over one image with all its objects.
_OBJECT_BATCH = 32


@dataclass(frozen=True)
class FFAResult:
    """One vector and how far to trust it.

    Attributes:
        vector: ``(C,)`` float32 of unit length.
        foreground_fraction: share of the picture (for a cropped object: of the crop) that was found to be foreground,
            in [0, 1]; 0 on a fallback, 1 where all of the picture was asked for.
        n_patches: patches that entered the average.
        fallback: True where no foreground was found and the whole picture (for an object: the ellipse inscribed in
            its box) stood in for it.
        coverage: ``(h, w)`` float32 share of foreground per patch, on a fallback of what stood in for it.
    """

    vector: np.ndarray
    foreground_fraction: float
    n_patches: int
    fallback: bool
    coverage: np.ndarray


class TokenStore(Protocol):
    """Where tokens are kept between passes: a :class:`~.token_cache.TokenCache`, or one with its two methods."""

    def get(self, key: str) -> Tokens | None:
        """The tokens ``(1, H, W, C)`` and class token ``(1, C)`` under a key, or None."""
        ...

    def put(self, key: str, tokens: Tokens) -> Tokens:
        """Keeps the tokens of one image and returns them as :meth:`get` will."""
        ...


class FFAExtractor:
    """Turns images and objects into FFA vectors.

    Args:
        backbone: the frozen encoder.
        foreground: a pixel foreground, a token foreground, or None: then masks come from the caller, and an image
            without a mask is averaged over all its patches.
        config: how vectors are made.
        token_cache: store of tokens that all methods share, used for images whose content hash is given.

    Raises:
        ConfigError: the configuration does not fit the backbone or the foreground.
    """

    def __init__(
        self,
        backbone: Backbone,
        foreground: PixelForeground | TokenForeground | None = None,
        config: FFAConfig | None = None,
        token_cache: TokenStore | None = None,
    ) -> None:
        self.backbone = backbone
        self.foreground = foreground
        self.config = config = config or FFAConfig()
        self.size = config.size if config.size is not None else backbone.default_size
        self._cache = token_cache
        self._pixels = cast(PixelForeground, foreground) if hasattr(foreground, "masks") else None
        self._tokens = cast(TokenForeground, foreground) if hasattr(foreground, "coverage") else None
        plan_geometry((1, 1), self.size, backbone.patch_size, config.resize)
        if self._tokens is not None and (config.encode == "cutout" or config.released_mask):
            raise ConfigError(
                f"foreground {self._tokens.name!r} is found in the tokens of the whole picture, too late to cut it out;"
                " use encode='original', or a foreground of pixels such as 'grabcut' or 'carvekit'"
            )

    @property
    def decode_min_side(self) -> int | None:
        """``min_side`` for :func:`decode_image`: for whole images, JPEGs at reduced scale are enough.

        Not for a foreground that works in pixels of the full picture.
        """
        if not self.config.fast_decode or (self._pixels is not None and self._pixels.full_scale):
            return None
        return _DECODE_FACTOR * self.size

    def config_dict(self) -> dict[str, Any]:
        """Everything that the vectors depend on besides the image, as JSON-able provenance."""
        return {
            "model": self.backbone.name,
            "weights_hash": self.backbone.weights_hash,
            "precision": self.backbone.precision,
            "foreground": self.foreground.name if self.foreground else None,
            "foreground_hash": self.foreground.weights_hash if self.foreground else None,
            **asdict(self.config),
            "size": self.size,
        }

    def prepare(
        self,
        image: np.ndarray,
        mask: np.ndarray | None = None,
        content_hash: str | None = None,
        image_hw: tuple[int, int] | None = None,
    ) -> PreparedImage:
        """The part of the work that needs no device; safe in worker threads.

        Args:
            image: ``(H, W, 3)`` uint8, upright; may be decoded at reduced scale (:attr:`decode_min_side`).
            mask: ``(H', W')`` foreground of the same picture at any scale: bool, integers with 0 as background, or
                floats in [0, 1]. It takes the place of the foreground method.
            content_hash: hash of the picture's content, for the token cache.
            image_hw: size of the picture at full scale; None where ``image`` is at full scale.

        Raises:
            ConfigError: the mask cannot be used.
        """
        hw = image_hw or (image.shape[0], image.shape[1])
        geometry = plan_geometry(hw, self.size, self.backbone.patch_size, self.config.resize)
        content = content_coverage(geometry)
        return self._prepare_view(View(image, geometry, content, content, content_hash), mask)

    def prepare_objects(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        masks: Sequence[np.ndarray | None] | None = None,
        route: ObjectRoute = "crop",
        exclusive: bool = False,
        content_hash: str | None = None,
    ) -> list[PreparedImage]:
        """As :meth:`prepare`, one vector per object of an image.

        Args:
            image: ``(H, W, 3)`` uint8, upright; at full scale, or small objects lose their detail.
            boxes: ``(N, 4)`` boxes ``(x, y, width, height)`` in pixels of ``image``.
            masks: per object None or its mask, of the size of the image or (at any scale) of its box. Without a mask
                the foreground method looks inside the box, and where it finds nothing, or there is none, the inscribed
                ellipse stands in and the result is flagged.
            route: ``"crop"`` encodes a letterboxed crop of each object; ``"image"`` encodes the image once and averages
                its tokens per object: cheap, but with the surroundings in the tokens, and poor below about 16 patches.
            exclusive: give a patch that several objects cover to the one that covers most of it.
            content_hash: as in :meth:`prepare`; used by the ``"image"`` route.

        Raises:
            ConfigError: the route does not fit the configuration, or masks and boxes do not fit together.
            ImageError: a box is not finite or has no part inside the image.
        """
        if route == "image" and (self.config.encode, self.config.pooling) != ("original", "patch"):
            raise ConfigError(
                "route='image' averages patches of one encoding of the whole image: use encode='original' and"
                " pooling='patch' with it, or route='crop'"
            )
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        hw = (image.shape[0], image.shape[1])
        objects = Objects(boxes, [None] * len(boxes) if masks is None else masks, hw)
        views = object_views(
            image,
            objects,
            route=route,
            size=self.size,
            patch=self.backbone.patch_size,
            resize=self.config.resize,
            exclusive=exclusive,
            content_hash=content_hash,
        )
        # An object is never its whole box: without any means to find it, the empty mask brings in the ellipse.
        unknown = np.zeros((1, 1), bool) if self.foreground is None else None
        return [self._prepare_view(view, unknown if mask is None else mask) for view, mask in views]

    def _prepare_view(self, view: View, mask: np.ndarray | None) -> PreparedImage:
        return prepare_view(view, mask, self.config, self._pixels, self._tokens is not None)

    def embed(self, batch: Sequence[PreparedImage], batch_size: int | None = None) -> list[FFAResult]:
        """Vectors of prepared images with equal group keys, in the same order.

        Args:
            batch: what :meth:`prepare` or :meth:`prepare_objects` returned.
            batch_size: most canvases per forward pass; None encodes all in one.

        Raises:
            ModelError: the encoder returned numbers that are not finite.
        """
        settled = self._settle(batch)
        sharing: dict[int, list[int]] = {}
        for index, prepared in enumerate(settled):
            sharing.setdefault(id(prepared.canvas), []).append(index)
        canvases = list(sharing.values())
        results: dict[int, FFAResult] = {}
        for start in range(0, len(canvases), batch_size or max(1, len(canvases))):
            chunk = canvases[start : start + (batch_size or len(canvases))]
            found = self._embed_chunk([[settled[index] for index in members] for members in chunk])
            results.update(zip([index for members in chunk for index in members], found, strict=True))
        return [results[index] for index in range(len(settled))]

    def embed_objects(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        masks: Sequence[np.ndarray | None] | None = None,
        route: ObjectRoute = "crop",
        exclusive: bool = False,
    ) -> list[FFAResult]:
        """One vector per object of an image; arguments and errors as for :meth:`prepare_objects`."""
        return self.embed(self.prepare_objects(image, boxes, masks, route, exclusive), batch_size=_OBJECT_BATCH)

    def _settle(self, batch: Sequence[PreparedImage]) -> list[PreparedImage]:
        """Runs the foreground network on the pictures that wait for it, each of them once."""
        pictures = {id(prepared.waiting.image): prepared.waiting.image for prepared in batch if prepared.waiting}
        if not pictures or self._pixels is None:
            return list(batch)
        masks = dict(zip(pictures, self._pixels.masks(list(pictures.values())), strict=True))
        return [
            apply_mask(prepared.waiting, masks[id(prepared.waiting.image)], self.config)
            if prepared.waiting
            else prepared
            for prepared in batch
        ]

    def _embed_chunk(self, canvases: list[list[PreparedImage]]) -> list[FFAResult]:
        """One forward pass; each canvas comes with the vectors that share it."""
        tokens = self._encode([members[0] for members in canvases])
        canvases = self._find_in_tokens(tokens.patch, canvases)
        mode = self.config.weights
        weights = [np.stack([patch_weights(_coverage(one), mode) for one in members]) for members in canvases]
        if self.config.pooling == "cls":
            rows = [cls.expand(len(members), -1) for cls, members in zip(tokens.cls, canvases, strict=True)]
        else:
            rows = [_average(patch, w) for patch, w in zip(tokens.patch, weights, strict=True)]
        units = self._unit(torch.cat(rows).cpu().numpy())
        ones = [one for members in canvases for one in members]
        return [_result(*row) for row in zip(ones, np.concatenate(weights), units, strict=True)]

    def _encode(self, views: list[PreparedImage]) -> Tokens:
        """Tokens of one canvas per view, from the cache where it has them."""
        keys = [self._token_key(view) for view in views]
        if self._cache is None or not any(keys):
            return self._forward(views)
        device = self.backbone.device
        parts = {row: found for row, key in enumerate(keys) if key and (found := self._cache.get(key))}
        missing = [row for row in range(len(views)) if row not in parts]
        if missing:
            fresh = self._forward([views[row] for row in missing])
            for row, patch, cls in zip(missing, fresh.patch.split(1), fresh.cls.split(1), strict=True):
                key, part = keys[row], Tokens(patch, cls)
                parts[row] = self._cache.put(key, part) if key else part
        ordered = [parts[row] for row in range(len(views))]
        return Tokens(
            torch.cat([part.patch.to(device) for part in ordered]), torch.cat([part.cls.to(device) for part in ordered])
        )

    def _forward(self, views: list[PreparedImage]) -> Tokens:
        canvases = torch.stack([cast(torch.Tensor, view.canvas) for view in views])
        return self.backbone.tokens(canvases, final_norm=self.config.final_norm)

    def _token_key(self, view: PreparedImage) -> str | None:
        if view.content_hash is None:
            return None
        decoded, canvas = (f"{height}x{width}" for height, width in (view.decoded_hw, view.geometry.canvas_hw))
        norm = "final" if self.config.final_norm else "prefinal"
        return token_key(view.content_hash, self.backbone, f"{self.config.resize}-{decoded}-{canvas}-{norm}")

    def _find_in_tokens(self, patch: torch.Tensor, canvases: list[list[PreparedImage]]) -> list[list[PreparedImage]]:
        """Settles the coverage of those that take their foreground from the tokens."""
        if self._tokens is None or all(one.coverage is not None for members in canvases for one in members):
            return canvases
        valid = np.stack([content_coverage(members[0].geometry) > 0 for members in canvases])
        found = self._tokens.coverage(patch, torch.from_numpy(valid).to(patch.device)).cpu().numpy()
        return [[_with_coverage(one, c) for one in members] for members, c in zip(canvases, found, strict=True)]

    def _unit(self, vectors: np.ndarray) -> np.ndarray:
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(norms).all() and (norms > 0).all()):
            raise ModelError(
                f"{self.backbone.name}: the encoder's tokens are not finite or average to zero; try precision='fp32',"
                " and if that does not help, its weights are broken"
            )
        return vectors / norms


def _average(patch: torch.Tensor, weights: np.ndarray) -> torch.Tensor:
    """``(N, C)`` weighted means of the tokens ``(h, w, C)`` under N weight maps ``(N, h, w)``."""
    shares = weights / weights.sum((1, 2), keepdims=True)
    return torch.from_numpy(shares).to(patch.device).flatten(1) @ patch.flatten(0, 1)


def _with_coverage(prepared: PreparedImage, found: np.ndarray) -> PreparedImage:
    if prepared.coverage is not None:
        return prepared
    coverage = np.minimum(found, prepared.window)
    if coverage.max() > 0:
        return replace(prepared, coverage=coverage)
    return replace(prepared, coverage=prepared.rescue, fallback=True)


def _coverage(prepared: PreparedImage) -> np.ndarray:
    return cast(np.ndarray, prepared.coverage)


def _result(prepared: PreparedImage, weights: np.ndarray, vector: np.ndarray) -> FFAResult:
    coverage = _coverage(prepared)
    fraction = 0.0 if prepared.fallback else coverage.sum() / content_coverage(prepared.geometry).sum()
    return FFAResult(
        vector=vector,
        foreground_fraction=min(1.0, float(fraction)),
        n_patches=int((weights > 0).sum()),
        fallback=prepared.fallback,
        coverage=coverage,
    )
