"""Matching pictures pair by pair: each is decoded and described once and used in all its pairs."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from ..brain.correspondence.features import FeatureExtractor, ImageFeatures, PreparedPicture
from ..brain.correspondence.joint_features import project_jointly
from ..brain.correspondence.views import View
from ..brain.cosalient.comparison import full_size
from ..brain.errors import ImageError
from ..brain.hashing import file_digest
from ..brain.images import decode_image
from .correspondence_pairs import DescribedPair, PairMatches, match_pairs
from .correspondence_setup import CorrespondenceOptions
from .keypoint_inputs import PairKeypoints

# Described pictures that are held: at 60 × 60 × 768 each view takes 11 MB, with the layers of a second network 26 MB.
MAX_BYTES = 1_000_000_000

# Views of pictures that are described, and held, for the pairs that are matched at a time.
_VIEWS_AT_ONCE = 48
# Likewise where a second network takes part: what a pair is projected onto takes as much memory again.
_LAYERED_VIEWS_AT_ONCE = 12

# Reads the ``(H', W')`` foreground of a sample for an image of some height and width; None where nothing marks it.
ReadMask = Callable[[str, tuple[int, int]], np.ndarray | None]


@dataclass(frozen=True)
class Picture:
    """An image and what marks its object; equal ones are described once.

    Attributes:
        path: the image file.
        mask_stamp: hash of what marks the object; empty where nothing does.
        sample_id: a sample that shows it, whose labels are read.
    """

    path: str
    mask_stamp: str = ""
    sample_id: str = field(default="", compare=False)


@dataclass(frozen=True)
class PairTask:
    """A pair to be matched; ``keypoints`` is None where matches are to be found without any."""

    source: Picture
    target: Picture
    keypoints: PairKeypoints | None


@dataclass(frozen=True)
class DescribedPicture:
    """A picture in the views that were asked for so far, and its ``(H, W)`` bool foreground at full size."""

    views: Mapping[View, ImageFeatures]
    mask: np.ndarray | None

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        own = 0 if self.mask is None else self.mask.nbytes
        return own + sum(one.nbytes for one in self.views.values())


class DescribedShelf:
    """Described pictures, the least recently used of which make room for new ones.

    Args:
        extractor: describes them.
        pool: threads that decode.
        read_mask: reads what marks their objects; None where nothing does.
        cached: whether the extractor keeps tokens, for which files must be hashed.
        max_bytes: of the pictures that are kept between calls.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        pool: ThreadPoolExecutor,
        read_mask: ReadMask | None = None,
        *,
        cached: bool = False,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._extractor = extractor
        self._pool = pool
        self._read_mask = read_mask
        self._cached = cached
        self._max_bytes = max_bytes
        self._held: OrderedDict[Picture, DescribedPicture | str] = OrderedDict()

    def fetch(self, wanted: Mapping[Picture, set[View]]) -> dict[Picture, DescribedPicture | str]:
        """Pictures in views; a text stands for one that cannot be read, and says why."""
        missing = [(picture, self._lacking(picture, views)) for picture, views in wanted.items()]
        self._describe([(picture, views) for picture, views in missing if views])
        found = {}
        for picture in wanted:
            self._held.move_to_end(picture)
            found[picture] = self._held[picture]
        size = sum(one.nbytes for one in self._held.values() if isinstance(one, DescribedPicture))
        while size > self._max_bytes:
            gone = self._held.popitem(last=False)[1]
            size -= gone.nbytes if isinstance(gone, DescribedPicture) else 0
        return found

    def _lacking(self, picture: Picture, views: set[View]) -> list[View]:
        held = self._held.get(picture)
        if isinstance(held, str):
            return []
        there = held.views if held is not None else {}
        return sorted((view for view in views if view not in there), key=lambda view: view.name)

    def _describe(self, wanted: Sequence[tuple[Picture, list[View]]]) -> None:
        readable, prepared = [], []
        for (picture, views), read in zip(wanted, self._pool.map(self._prepare, wanted), strict=True):
            if isinstance(read, str):
                self._held[picture] = read
            else:
                readable.append((picture, views, read[1]))
                prepared += read[0]
        described = iter(self._extractor.describe(prepared))
        for picture, views, mask in readable:
            held = self._held.get(picture)
            known = dict(held.views) if isinstance(held, DescribedPicture) else {}
            self._held[picture] = DescribedPicture(known | {view: next(described) for view in views}, mask)

    def _prepare(self, wanted: tuple[Picture, list[View]]) -> tuple[list[PreparedPicture], np.ndarray | None] | str:
        picture, views = wanted
        try:
            image = decode_image(picture.path)
            image_hw = (image.shape[0], image.shape[1])
            mask = None if self._read_mask is None else self._read_mask(picture.sample_id, image_hw)
            digest = file_digest(picture.path) if self._cached else None
        except (ImageError, OSError) as error:
            return str(error)
        prepared = [self._extractor.prepare(image, mask, content_hash=digest, view=view) for view in views]
        return prepared, None if mask is None else full_size(mask >= 0.5, image_hw)


def match_tasks(
    tasks: Sequence[PairTask], options: CorrespondenceOptions, shelf: DescribedShelf
) -> Iterator[tuple[int, PairMatches | str]]:
    """Matches pairs of pictures.

    Pairs that share their first picture follow each other, so that a picture is seldom described twice, however many
    there are.

    Args:
        tasks: what to match.
        options: how.
        shelf: describes and keeps pictures.

    Yields:
        the number of a pair and its matches, or why it could not be matched; in an order of its own.
    """
    order = sorted(range(len(tasks)), key=lambda number: (tasks[number].source.path, tasks[number].target.path))
    at_once = _VIEWS_AT_ONCE if options.diffusion is None else _LAYERED_VIEWS_AT_ONCE
    step = max(1, at_once // (len(options.views) + len(options.target_views)))
    for start in range(0, len(order), step):
        block = order[start : start + step]
        wanted: dict[Picture, set[View]] = {}
        for number in block:
            wanted.setdefault(tasks[number].source, set()).update(options.views)
            wanted.setdefault(tasks[number].target, set()).update(options.target_views)
        found = shelf.fetch(wanted)
        ready, pairs = [], []
        for number in block:
            task = tasks[number]
            source, target = found[task.source], found[task.target]
            if isinstance(source, DescribedPicture) and isinstance(target, DescribedPicture):
                ready.append(number)
                pairs.append(_described(task, source, target, options))
            else:
                reasons = [one for one in (source, target) if isinstance(one, str)]
                yield number, "; ".join(dict.fromkeys(reasons))
        yield from zip(ready, match_pairs(pairs, options), strict=True)


def _described(
    task: PairTask, source: DescribedPicture, target: DescribedPicture, options: CorrespondenceOptions
) -> DescribedPair:
    views = {view: source.views[view] for view in options.views}
    turned = {view: target.views[view] for view in options.target_views}
    return DescribedPair(*comparable(views, turned), task.keypoints, target.mask)


def comparable(
    source: Mapping[View, ImageFeatures], target: Mapping[View, ImageFeatures]
) -> tuple[dict[View, ImageFeatures], dict[View, ImageFeatures]]:
    """The views of a pair in features that may be compared.

    Those of a backbone alone are so already. With a second network they become the principal components of all the
    views that are given; other views make other features.
    """
    described = [*source.values(), *target.values()]
    if any(one.layers for one in described):
        described = project_jointly(described)
    own, others = described[: len(source)], described[len(source) :]
    return dict(zip(source, own, strict=True)), dict(zip(target, others, strict=True))
