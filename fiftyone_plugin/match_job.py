"""Comparing files pair by pair: each picture is decoded and encoded once and used in all its pairs."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..brain.cosalient.comparison import PairMatcher, PairOutcome, Picture
from ..brain.errors import ImageError
from ..brain.images import decode_image
from .fingerprints import crop_box
from .mask_store import read_mask

# Described pictures that are held: at one or two megabytes each, some 300 MB.
CAPACITY = 200

# Pairs that are compared at a time, and twice as many pictures that are decoded at a time.
_BLOCK = 16


@dataclass(frozen=True)
class Source:
    """A picture to compare: a file, or an object in it.

    Attributes:
        path: the image file.
        mask: picture file with the foreground, where anything but 0 is; None leaves it to the matcher.
        box: ``(x, y, width, height)`` relative to the image of an object; None for the whole image.
    """

    path: str
    mask: str | None = None
    box: tuple[float, float, float, float] | None = None


def compare_files(
    pairs: Sequence[tuple[Source, Source]], matcher: PairMatcher, *, num_workers: int = 2, capacity: int = CAPACITY
) -> Iterator[tuple[int, PairOutcome | str]]:
    """Compares pairs of pictures.

    Pairs that share their first picture follow each other, so that a picture is seldom encoded twice, however many
    there are.

    Args:
        pairs: what to compare.
        matcher: by what.
        num_workers: threads that decode.
        capacity: described pictures that are kept.

    Yields:
        the number of a pair and its outcome, or why it could not be compared; in an order of its own.
    """
    with ThreadPoolExecutor(max(1, num_workers), thread_name_prefix="selfsame-match") as pool:
        yield from compare_sources(pairs, matcher, PictureShelf(matcher, pool, capacity))


def compare_sources(
    pairs: Sequence[tuple[Source, Source]], matcher: PairMatcher, shelf: "PictureShelf"
) -> Iterator[tuple[int, PairOutcome | str]]:
    """As :func:`compare_files`, with pictures from a shelf that outlasts the call."""
    order = sorted(range(len(pairs)), key=lambda number: (pairs[number][0].path, pairs[number][1].path))
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        found = shelf.fetch([source for number in block for source in pairs[number]])
        ready = []
        for number in block:
            reasons = [found[source] for source in pairs[number] if isinstance(found[source], str)]
            if reasons:
                yield number, "; ".join(map(str, dict.fromkeys(reasons)))
            else:
                ready.append(number)
        outcomes = matcher.compare([(found[pairs[n][0]], found[pairs[n][1]]) for n in ready]) if ready else []
        yield from zip(ready, outcomes, strict=True)


class PictureShelf:
    """Described pictures, the least recently used of which make room for new ones.

    Args:
        matcher: describes them.
        pool: threads that decode.
        capacity: how many are kept.
    """

    def __init__(self, matcher: PairMatcher, pool: ThreadPoolExecutor, capacity: int = CAPACITY) -> None:
        self._matcher = matcher
        self._pool = pool
        self._capacity = capacity
        self._held: OrderedDict[Source, Picture | str] = OrderedDict()

    def fetch(self, sources: Sequence[Source]) -> dict[Source, "Picture | str"]:
        """Described pictures; a text stands for one that cannot be read, and says why."""
        wanted = list(dict.fromkeys(sources))
        missing = [source for source in wanted if source not in self._held]
        for start in range(0, len(missing), 2 * _BLOCK):
            self._describe(missing[start : start + 2 * _BLOCK])
        found = {}
        for source in wanted:
            self._held.move_to_end(source)
            found[source] = self._held[source]
        while len(self._held) > self._capacity:
            self._held.popitem(last=False)
        return found

    def _describe(self, sources: Sequence[Source]) -> None:
        prepared = list(self._pool.map(self._prepare, sources))
        readable = [item for item in prepared if not isinstance(item, str)]
        described = iter(self._matcher.describe(readable) if readable else [])
        for source, item in zip(sources, prepared, strict=True):
            self._held[source] = item if isinstance(item, str) else next(described)

    def _prepare(self, source: Source) -> object:
        """The picture on its way to the encoder, or why there is none."""
        try:
            image: np.ndarray | None = decode_image(source.path)
            mask = None if source.mask is None else read_mask(source.mask)
        except ImageError as error:
            return str(error)
        if source.box is not None:
            image = crop_box(image, source.box)
            mask = mask if mask is None else crop_box(mask, source.box)
        if image is None:
            return f"{source.path}: the box {source.box} is empty or outside the image; repair or delete it"
        return self._matcher.prepare(image, mask)
