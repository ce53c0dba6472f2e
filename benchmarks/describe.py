"""From images to the vectors of every method: encoders' averages and class tokens, colour histograms and hashes."""

import importlib.util
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from ..brain.backbones.base import Tokens
from ..brain.ffa import FFAExtractor, PreparedImage
from ..brain.foreground import PixelForeground, TokenForeground
from ..brain.images import decode_image
from .baselines import histogram, phash, phash_similarity
from .manifest import Item

HAS_IMAGEHASH = importlib.util.find_spec("imagehash") is not None

MaskSource = Callable[[Sequence[Item], list[np.ndarray]], list[np.ndarray]]


def read_image(item: Item, *, grey: bool) -> np.ndarray:
    """``(H, W, 3)`` uint8 picture of an item, on request without its colour."""
    image = decode_image(item.path)
    return np.asarray(Image.fromarray(image).convert("L").convert("RGB")) if grey else image


def pixel_masks(foreground: PixelForeground | TokenForeground | None) -> MaskSource | None:
    """The masks of a foreground method that looks at pixels; None for any other."""
    if not hasattr(foreground, "masks"):
        return None
    return lambda items, images: foreground.masks(images)


class TokenMemory:
    """The tokens of one batch in memory, so that methods which differ in pooling share the forward pass."""

    def __init__(self) -> None:
        self._tokens: dict[str, Tokens] = {}

    def get(self, key: str) -> Tokens | None:
        return self._tokens.get(key)

    def put(self, key: str, tokens: Tokens) -> Tokens:
        self._tokens[key] = tokens
        return tokens

    def clear(self) -> None:
        self._tokens.clear()


class Describer:
    """Turns images into the vectors of all methods: those of the extractors, and the baselines that need no learning.

    Args:
        extractors: by the names of their methods.
        memory: token store of the extractors; it is emptied before each batch.
        masks: gives the foreground masks of a batch, which are made once for all methods that use them; None where
            there are no masks of pixels.
        masked: names of the extractors that are given these masks.
        grey: whether to take the colour out of the images first.
    """

    def __init__(
        self,
        extractors: Mapping[str, FFAExtractor],
        memory: TokenMemory,
        *,
        masks: MaskSource | None,
        masked: Collection[str],
        grey: bool,
    ) -> None:
        self._extractors = extractors
        self._memory = memory
        self._mask_source = masks
        self._masked = masked
        self._grey = grey

    def collect(self, items: Sequence[Item], batch_size: int) -> dict[str, np.ndarray]:
        """``(n, d)`` vectors per method; images are held in memory one batch at a time."""
        batches: dict[str, list[np.ndarray]] = {}
        for start in range(0, len(items), batch_size):
            for method, vectors in self._vectors(items[start : start + batch_size]):
                batches.setdefault(method, []).append(vectors)
        return {method: np.concatenate(parts) for method, parts in batches.items()}

    def _vectors(self, items: Sequence[Item]) -> Iterator[tuple[str, np.ndarray]]:
        """Method by method the ``(n, d)`` unit vectors of a batch of images."""
        images = [read_image(item, grey=self._grey) for item in items]
        masks = None if self._mask_source is None else self._mask_source(items, images)
        self._memory.clear()
        for method, extractor in self._extractors.items():
            yield method, embed(extractor, images, masks if method in self._masked else None)
        yield "histogram", np.stack([histogram(image) for image in images])
        if masks is not None:
            inside = [histogram(image, mask) for image, mask in zip(images, masks, strict=True)]
            yield "histogram_foreground", np.stack(inside)
        if HAS_IMAGEHASH:
            yield "phash", np.stack([phash(image) for image in images])


def embed(extractor: FFAExtractor, images: list[np.ndarray], masks: list[np.ndarray] | None) -> np.ndarray:
    """``(n, d)`` unit vectors of n images of any sizes; ``masks`` take the place of the foreground method."""
    vectors: dict[int, np.ndarray] = {}
    batches: dict[tuple[int, int], list[tuple[int, PreparedImage]]] = {}
    for index, image in enumerate(images):
        prepared = extractor.prepare(image, None if masks is None else masks[index], content_hash=str(index))
        batches.setdefault(prepared.group_key, []).append((index, prepared))
    for batch in batches.values():
        results = extractor.embed([prepared for _, prepared in batch])
        vectors.update({index: result.vector for (index, _), result in zip(batch, results, strict=True)})
    return np.stack([vectors[index] for index in range(len(images))])


def similarity_of(method: str, vectors: np.ndarray) -> np.ndarray:
    """``(n, n)`` similarity of a method's vectors: the cosine, for hashes the share of equal bits."""
    return phash_similarity(vectors) if method == "phash" else vectors @ vectors.T
