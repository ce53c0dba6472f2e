"""Dense features of pictures for matching: made once per picture, used in all its pairs.

Source of the recipe: Zhang et al., "Telling Left from Right" (CVPR 2024): the picture is letterboxed onto a canvas of
840 pixels, tokens are those before the encoder's final norm, and each is brought to unit length.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
import torch

from ..backbones.base import Backbone, Tokens
from ..errors import ConfigError, ModelError
from ..geometry import Geometry, image_to_canvas, plan_geometry
from ..token_cache import token_key
from .fusion import fuse, gather_layers, unit_features
from .grids import picture_cells, region_cells
from .views import IDENTITY, View

# Side of the canvas in the published evaluations.
CANVAS_SIDE = 840

# Described pictures that a shelf holds: at 60 × 60 × 768 they take 11 MB each.
_SHELF_BYTES = 1_000_000_000

# Decoded pictures that a shelf holds while they are described.
_PORTION = 16


class TokenStore(Protocol):
    """Where tokens are kept between runs: a :class:`~..token_cache.TokenCache`, or one with its two methods."""

    def get(self, key: str) -> Tokens | None: ...

    def put(self, key: str, tokens: Tokens) -> Tokens: ...


class LayerSource(Protocol):
    """A second network whose features join those of the backbone, such as :class:`.diffusion.DiffusionFeatures`.

    Attributes:
        name: what the user asked for.
        weights_hash: hash of its weights.
        precision: number format of its arithmetic.
        count: how many layers it gives.
    """

    name: str
    weights_hash: str
    precision: str
    count: int

    def settings(self) -> dict[str, Any]:
        """Everything but the image that the features depend on, JSON-able."""
        ...

    def layers(self, image: np.ndarray) -> list[torch.Tensor]:
        """Maps ``(h_k, w_k, C_k)`` float32 of an ``(H, W, 3)`` uint8 picture on its own square letterbox, coarsest
        first."""
        ...


@dataclass(frozen=True)
class FeatureConfig:
    """How pictures are described.

    Attributes:
        size: side of the letterboxed canvas in pixels; None takes the multiple of the patch nearest to 840.
        final_norm: tokens after (True) or before the encoder's final norm.
        components: principal components per layer that each pair is projected onto, see
            :func:`.joint_features.project_jointly`; None compares the features themselves.
    """

    size: int | None = None
    final_norm: bool = False
    components: int | None = None

    def __post_init__(self) -> None:
        if self.components is not None and self.components < 1:
            raise ConfigError(f"components={self.components} must be at least 1, or None to do without")


@dataclass(frozen=True)
class ImageFeatures:
    """A described picture.

    Attributes:
        features: ``(h, w, C)`` float32 descriptors of unit length; where there are ``layers``, those of the backbone
            alone, which the others are still to join.
        geometry: where the picture lies on the grid.
        valid: ``(h, w)`` bool: cells that show some of the picture and not padding alone.
        region: ``(h, w)`` bool: cells of the object, from its mask; None where there is no mask.
        tokens: ``(h, w, C)`` tokens of the backbone as they were; kept where they are to be projected.
        layers: maps of the second network from the coarsest to the finest; kept where they are to be projected.
    """

    features: torch.Tensor
    geometry: Geometry
    valid: np.ndarray
    region: np.ndarray | None = None
    tokens: torch.Tensor | None = None
    layers: tuple[torch.Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        """Memory that its features take."""
        tokens = () if self.tokens is None else (self.tokens,)
        return sum(one.nbytes for one in (self.features, *tokens, *self.layers))

    def foreground(self) -> np.ndarray:
        """``(h, w)`` bool: the object where its mask is known and not empty, otherwise the picture."""
        return self.valid if self.region is None or not self.region.any() else self.region


@dataclass(frozen=True)
class PreparedPicture:
    """A picture on its way to the encoder, with the names of its tokens and of its layers in the cache."""

    image: np.ndarray
    geometry: Geometry
    region: np.ndarray | None
    key: str | None
    layer_keys: tuple[str, ...]


class FeatureExtractor:
    """Describes pictures for matching.

    Args:
        backbone: the encoder.
        config: None takes the defaults.
        second: a network whose features are to join in.
        token_cache: store of tokens that all methods share, used for pictures whose content hash is given.
        batch_size: pictures per pass.

    Raises:
        ConfigError: the size of the configuration is not a multiple of the patch.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: FeatureConfig | None = None,
        *,
        second: LayerSource | None = None,
        token_cache: TokenStore | None = None,
        batch_size: int = 4,
    ) -> None:
        self.backbone = backbone
        self.config = config or FeatureConfig()
        patch = backbone.patch_size
        self.size = self.config.size or max(1, round(CANVAS_SIDE / patch)) * patch
        self.second = second
        self._cache = token_cache
        self._batch_size = max(1, batch_size)
        self._place((1, 1))

    def settings(self) -> dict[str, Any]:
        """Everything that features depend on besides the picture, JSON-able, for provenance."""
        second = None if self.second is None else {**self.second.settings(), "weights_hash": self.second.weights_hash}
        return {
            **asdict(self.config),
            "size": self.size,
            "backbone": self.backbone.name,
            "weights_hash": self.backbone.weights_hash,
            "precision": self.backbone.precision,
            "second": second,
        }

    def prepare(
        self,
        image: np.ndarray,
        mask: np.ndarray | None = None,
        *,
        content_hash: str | None = None,
        view: View = IDENTITY,
    ) -> PreparedPicture:
        """The part of the work that needs no device; safe in worker threads.

        Args:
            image: ``(H, W, 3)`` uint8 upright picture.
            mask: ``(H', W')`` foreground at any scale, see :func:`.grids.region_cells`.
            content_hash: of the picture, under which its tokens are kept; None keeps none.
            view: how to turn picture and mask first.

        Raises:
            ConfigError: the mask cannot be used.
        """
        turned = view.apply(image)
        geometry = self._place((turned.shape[0], turned.shape[1]))
        region = None if mask is None else region_cells(view.apply(mask), geometry)
        place = f"letterbox-{image.shape[0]}x{image.shape[1]}"
        # An upright picture has the key that other methods give it.
        ending = "" if view == IDENTITY else f"-{view.name}"
        return PreparedPicture(
            turned,
            geometry,
            region,
            self._key(content_hash, place, ending),
            self._layer_keys(content_hash, place + ending),
        )

    def describe(self, prepared: Sequence[PreparedPicture]) -> list[ImageFeatures]:
        """Features of prepared pictures, in the same order, on the backbone's device.

        Raises:
            ModelError: the encoder returned numbers that are not finite.
        """
        found: dict[int, torch.Tensor] = {}
        missing = []
        for index, picture in enumerate(prepared):
            held = self._cache.get(picture.key) if self._cache is not None and picture.key else None
            if held is None:
                missing.append(index)
            else:
                found[index] = held.patch[0].to(self.backbone.device)
        for start in range(0, len(missing), self._batch_size):
            chunk = missing[start : start + self._batch_size]
            found.update(zip(chunk, self._encode([prepared[index] for index in chunk]), strict=True))
        return [self._described(picture, found[index]) for index, picture in enumerate(prepared)]

    def __call__(self, image: np.ndarray, mask: np.ndarray | None = None, **options: Any) -> ImageFeatures:
        """Features of one picture; arguments as of :meth:`prepare`."""
        return self.describe([self.prepare(image, mask, **options)])[0]

    def _place(self, image_hw: tuple[int, int]) -> Geometry:
        return plan_geometry(image_hw, self.size, self.backbone.patch_size, "letterbox")

    def _key(self, content_hash: str | None, place: str, ending: str) -> str | None:
        if content_hash is None:
            return None
        norm = "final" if self.config.final_norm else "prefinal"
        return token_key(content_hash, self.backbone, f"{place}-{self.size}x{self.size}-{norm}{ending}")

    def _layer_keys(self, content_hash: str | None, place: str) -> tuple[str, ...]:
        if content_hash is None or self.second is None:
            return ()
        # Of an encoder, a key takes the weights and the precision alone.
        source, settings = cast(Backbone, self.second), {**self.second.settings(), "place": place}
        return tuple(token_key(content_hash, source, {**settings, "layer": k}) for k in range(self.second.count))

    def _encode(self, chunk: Sequence[PreparedPicture]) -> list[torch.Tensor]:
        canvases = torch.stack([image_to_canvas(picture.image, picture.geometry) for picture in chunk])
        tokens = self.backbone.tokens(canvases, final_norm=self.config.final_norm)
        kept = []
        for picture, patch, cls in zip(chunk, tokens.patch.split(1), tokens.cls.split(1), strict=True):
            if not patch.isfinite().all():
                raise ModelError(
                    f"{self.backbone.name}: the encoder's tokens are not finite; try precision='fp32', and if that does"
                    " not help, its weights are broken"
                )
            one = Tokens(patch, cls)
            kept.append((self._cache.put(picture.key, one) if self._cache and picture.key else one).patch[0])
        return kept

    def _described(self, picture: PreparedPicture, tokens: torch.Tensor) -> ImageFeatures:
        layers = self._layers(picture)
        described = ImageFeatures(
            unit_features(tokens), picture.geometry, picture_cells(picture.geometry), picture.region
        )
        if self.config.components is not None:
            # All layers side by side on the grid of the tokens would take four times the memory.
            return replace(described, layers=layers) if layers else replace(described, tokens=tokens)
        if not layers:
            return described
        finest_first = gather_layers(layers[::-1], (tokens.shape[0], tokens.shape[1]))
        return replace(described, features=fuse(finest_first, tokens))

    def _layers(self, picture: PreparedPicture) -> tuple[torch.Tensor, ...]:
        """The second network's layers, from the cache where it has all of them."""
        second = self.second
        if second is None:
            return ()
        if self._cache is None or not picture.layer_keys:
            return tuple(layer.to(self.backbone.device) for layer in second.layers(picture.image))
        held = [self._cache.get(key) for key in picture.layer_keys]
        found = [one.patch[0] for one in held if one is not None]
        if len(found) < len(held):
            made = [Tokens(layer[None], layer.new_empty(1, 0)) for layer in second.layers(picture.image)]
            found = [self._cache.put(*one).patch[0] for one in zip(picture.layer_keys, made, strict=True)]
        return tuple(layer.to(self.backbone.device) for layer in found)


class FeatureShelf:
    """Described pictures, the least recently used of which make room for new ones.

    Args:
        extractor: describes them.
        read: returns a picture, ``(H, W, 3)`` uint8, its mask or None, and its content hash or None, by its name.
        max_bytes: of the features that are kept between calls.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        read: Callable[[Hashable], tuple[np.ndarray, np.ndarray | None, str | None]],
        max_bytes: int = _SHELF_BYTES,
    ) -> None:
        self._extractor = extractor
        self._read = read
        self._max_bytes = max_bytes
        self._held: OrderedDict[tuple[Hashable, View], ImageFeatures] = OrderedDict()

    def fetch(self, wanted: Sequence[tuple[Hashable, View]]) -> dict[tuple[Hashable, View], ImageFeatures]:
        """Features of pictures in views, each described at most once.

        Args:
            wanted: names of pictures, and how to turn them; may repeat themselves.

        Raises:
            Exception: whatever ``read`` raises.
        """
        distinct = list(dict.fromkeys(wanted))
        names = list(dict.fromkeys(name for name, _ in distinct))
        for start in range(0, len(names), _PORTION):
            part = names[start : start + _PORTION]
            self._add([one for one in distinct if one[0] in part and one not in self._held])
        found = {}
        for one in distinct:
            self._held.move_to_end(one)
            found[one] = self._held[one]
        size = sum(one.nbytes for one in self._held.values())
        while size > self._max_bytes:
            size -= self._held.popitem(last=False)[1].nbytes
        return found

    def _add(self, missing: Sequence[tuple[Hashable, View]]) -> None:
        """Reads and describes pictures, each once for all its views."""
        pictures = {name: self._read(name) for name in dict.fromkeys(name for name, _ in missing)}
        prepared = []
        for name, view in missing:
            image, mask, content_hash = pictures[name]
            prepared.append(self._extractor.prepare(image, mask, content_hash=content_hash, view=view))
        self._held.update(zip(missing, self._extractor.describe(prepared), strict=True))
