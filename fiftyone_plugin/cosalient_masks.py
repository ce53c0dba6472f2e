"""Masks of what a set of images has in common: of every group or cluster of a run, of a view, or of pairs."""

import os
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import fiftyone.core.view as fov
import numpy as np

from ..brain.backbones.device import Precision
from ..brain.cosalient.comparison import PairMatcher, Picture, full_size
from ..brain.errors import ConfigError, ImageError
from .dataset_io import (
    FieldSpec,
    check_field_name,
    declare_fields,
    image_samples,
    readable_and_internal,
    show_in_sidebar,
)
from .engine.local import Progress, check_counts
from .group_table import find_group_record, group_fields, run_place
from .item_fields import Place, write_items
from .mask_store import MASK_TARGETS, MaskStore
from .match_fields import stored_mask
from .match_job import PictureShelf, Source
from .match_setup import MatcherChoice, mask_files, recorded
from .pairs import flat_pairs, is_pair_dataset, read_pairs
from .provenance import config_hash, file_stamp, sample_provenance
from .result_keys import check_result_key
from .runs import RunSummary, nothing_to_do, run_key_for
from .steps import plain_function

METHOD = "compute_cosalient_masks"

# Described images take one or two megabytes each. A plain view of more is more likely one whose groups the user forgot
# to name; a larger group of a run is masked in parts.
_LARGEST_SET = 200


@dataclass(frozen=True)
class _Member:
    """An image that is to have its mask: its sample, and what it is made from."""

    id: str
    source: Source


_Set = Sequence[_Member]
_Rows = list[tuple[str, str, dict[str, Any]]]


def compute_cosalient_masks_steps(
    samples: foc.SampleCollection,
    field: str = "cosalient",
    *,
    key: str | None = None,
    matcher: str = "training_free",
    model: str | None = None,
    saliency: str = "auto",
    refine: bool | None = None,
    mask_dir: str | os.PathLike | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    num_workers: int = 2,
    overwrite: bool = False,
    skip_failures: bool = True,
) -> Generator[Progress, None, RunSummary]:
    """Masks what images have in common.

    Of a pair dataset each pair is a set; with ``key`` each duplicate group or cluster is one, and each of its members
    gets the mask of their common object; otherwise the whole view is. Besides ``field`` (a ``Segmentation`` with a PNG
    of the image's size) it writes ``<field>_no_common_region``, ``<field>_fraction``, ``<field>_error`` and
    ``<field>_provenance``. A second run computes only sets that are new or have changed. Images in no set keep what an
    earlier run wrote.

    Args:
        samples: a dataset or view of images, or of pairs.
        field: where the masks go.
        key: key of a run of ``find_duplicates``, ``find_exact_duplicates`` or ``cluster_objects`` on whole images. Of
            a group its members in the view are a set; one of more than 200 is masked in parts of at most as many.
        matcher: ``"training_free"``, ``"training_free_paper"``, or a trained one, by its name or folder.
        model: backbone of the training-free matcher; None takes the best one at hand.
        saliency: what stands out in an image: ``"foreground"``, ``"one_pass"`` or ``"attention"`` for the training-free
            matcher; ``"field:<name>"`` for the masks of a Segmentation of the images (those without one are left to
            the matcher); ``"auto"`` leaves it to the matcher.
        refine: give masks the edges of the picture by GrabCut; None leaves it to the matcher.
        mask_dir: folder of the PNG files; None is ``$SELFSAME_HOME/masks/<dataset>/<field>``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        precision: number format of the networks: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        num_workers: threads that decode.
        overwrite: compute again what is up to date.
        skip_failures: put the reason of a failure into ``<field>_error`` and go on; False raises at the first.

    Returns:
        What was done; ``counts`` has images ``total``, ``done``, ``skipped`` and ``failed``, ``sets``, and sets that
        have ``nothing`` in common.

    Raises:
        ConfigError: no such run, fewer than two images, or an option cannot work.
        ModelError: a model cannot be loaded.
        ImageError: an image cannot be read, with ``skip_failures=False``.
    """
    started = time.perf_counter()
    check_counts(None, num_workers)
    check_field(samples, field)
    choice = MatcherChoice(matcher, model, saliency, refine, None, device, precision)
    if choice.mask_field == field:
        raise ConfigError(f"saliency={saliency!r} would be overwritten by the masks; give them another field")
    sets = _sets(samples, key, choice.mask_field)
    if not sets:
        return _no_sets(samples, key)
    total = sum(map(len, sets))
    store = MaskStore(samples, field, mask_dir)
    yield Progress(0, total, label="Loading the model")
    found = choice.load()
    settings = {**found.settings(), "saliency": saliency}
    _declare(samples, field, {"method": METHOD, **settings})
    counts = {"total": total, "done": 0, "skipped": 0, "failed": 0, "sets": len(sets), "nothing": 0}
    summary = RunSummary(run_key_for(field), METHOD, counts, notices=choice.notices(found, scores=False))
    summary.details = {"mask_dir": str(store.folder), "matcher": found.name}
    with recorded(samples, summary, {"field": field, "key": key, **settings}, started):
        job = _Masking(samples._dataset, field, found, store, summary)
        yield from job.run(sets, num_workers, overwrite, skip_failures)
        job.count_nothing(sets)
        summary.images_per_second = counts["done"] / (time.perf_counter() - started)
    return summary


compute_cosalient_masks = plain_function(compute_cosalient_masks_steps)


def check_field(samples: foc.SampleCollection, field: str) -> None:
    """Refuses a field for the masks that is no name, or belongs to somebody else.

    Raises:
        ConfigError: see above.
    """
    check_field_name(samples, field)
    check_result_key(samples, run_key_for(field), METHOD, _specs(field))


def _specs(field: str) -> dict[str, FieldSpec]:
    mask = {"embedded_doc_type": fo.Segmentation}
    return {
        field: FieldSpec(fo.EmbeddedDocumentField, "Mask of what the images of a set have in common", mask),
        f"{field}_no_common_region": FieldSpec(
            fo.BooleanField, "Whether this image has nothing in common with its set"
        ),
        f"{field}_fraction": FieldSpec(fo.FloatField, "Share of the image that the mask takes"),
        f"{field}_error": FieldSpec(fo.StringField, f"Why {field} could not be computed", internal=True),
        f"{field}_provenance": FieldSpec(fo.StringField, f"Hash of the set and settings behind {field}", internal=True),
    }


def _declare(samples: foc.SampleCollection, field: str, info: Mapping[str, Any]) -> None:
    specs, dataset = _specs(field), samples._dataset
    declare_fields(samples, specs, dict(info))
    show_in_sidebar(samples, *readable_and_internal(specs))
    dataset.mask_targets = {**dataset.mask_targets, field: MASK_TARGETS}
    dataset.save()


def _sets(samples: foc.SampleCollection, key: str | None, mask_field: str | None) -> list[_Set]:
    """What belongs together; the order of the images of a set, which the view may change, is that of their ids."""
    of_pairs = is_pair_dataset(samples)
    flat = flat_pairs(samples) if of_pairs else image_samples(samples)
    if of_pairs:
        found = _pairs(samples, key)
    elif key is not None:
        found = _groups(flat, key)
    else:
        found = [_whole_view(flat)] if flat.count() else []
    masks = mask_files(flat, mask_field, [sample_id for files in found for sample_id in files])
    return [[_Member(i, Source(files[i], masks.get(i))) for i in sorted(files)] for files in found]


def _pairs(samples: foc.SampleCollection, key: str | None) -> list[dict[str, str]]:
    if key is not None:
        raise ConfigError(f"key={key!r} names groups of images, but this is a dataset of pairs; leave it out")
    return [{member.id: member.filepath for member in (row.source, row.target)} for row in read_pairs(samples)]


def _groups(samples: foc.SampleCollection, key: str) -> list[dict[str, str]]:
    """Files of the members of each group by id, the first group first."""
    record = find_group_record(samples, key)
    if run_place(record).patches_field is not None:
        raise ConfigError(f"run {key!r} compared objects; masks are made of whole images, so use a run on images")
    number = group_fields(record).number
    groups: dict[int, dict[str, str]] = {}
    for group, sample_id, path in zip(*samples.exists(number).values([number, "id", "filepath"]), strict=True):
        groups.setdefault(group, {})[sample_id] = path
    return [part for group in sorted(groups) if len(groups[group]) > 1 for part in _parts(groups[group])]


def _parts(files: Mapping[str, str]) -> list[dict[str, str]]:
    """As few parts of about one size as the limit allows."""
    parts = np.array_split(sorted(files), -(-len(files) // _LARGEST_SET))
    return [{str(sample_id): files[str(sample_id)] for sample_id in part} for part in parts]


def _whole_view(samples: foc.SampleCollection) -> dict[str, str]:
    count = samples.count()
    if count < 2:
        raise ConfigError("one image has nothing to share; select at least two, or name groups with key=...")
    if count > _LARGEST_SET:
        raise ConfigError(
            f"{count:,} images are too many for one set (at most {_LARGEST_SET}); name groups of a run with key=...,"
            " or select the images that show one object"
        )
    return dict(zip(*samples.values(["id", "filepath"]), strict=True))


def _no_sets(samples: foc.SampleCollection, key: str | None) -> RunSummary:
    summary = nothing_to_do(METHOD)
    if key is not None and image_samples(samples).count():
        summary.notices = [f"Nothing to do: no group of the run {key!r} has two images in this view."]
    return summary


@dataclass
class _Masking:
    """The masking of the sets that have no valid masks."""

    dataset: fo.Dataset
    field: str
    matcher: PairMatcher
    store: MaskStore
    summary: RunSummary

    def run(
        self, sets: Sequence[_Set], num_workers: int, overwrite: bool, skip_failures: bool
    ) -> Generator[Progress, None, None]:
        """Masks set by set and stores what comes out, so that a kill loses one set."""
        counts, failed = self.summary.counts, self.summary.failed
        config = config_hash(METHOD, self.matcher.settings())
        stored = {} if overwrite else self._stored(sets, "provenance")
        with ThreadPoolExecutor(max(1, num_workers), thread_name_prefix="selfsame-cosalient") as pool:
            shelf = PictureShelf(self.matcher, pool)
            for members in sets:
                stamp = _provenance(config, members)
                if all(stored.get(member.id) == stamp for member in members):
                    counts["skipped"] += len(members)
                else:
                    rows, reasons = self._mask_set(shelf, members, stamp)
                    write_items(self.dataset, Place(), rows)
                    failed |= reasons
                    if reasons and not skip_failures:
                        raise ImageError(next(iter(reasons.values())))
                    counts["done"] += len(members) - len(reasons)
                label = "Masking common objects"
                yield Progress(counts["done"], counts["total"], len(failed), counts["skipped"], label=label)

    def count_nothing(self, sets: Sequence[_Set]) -> None:
        """How many sets have nothing in common, those of earlier runs included."""
        lacking = self._stored(sets, "no_common_region")
        flags = [{lacking[member.id] for member in members if lacking.get(member.id) is not None} for members in sets]
        nothing = self.summary.counts["nothing"] = flags.count({True})
        if nothing:
            text = f"{nothing:,} of {len(sets):,} sets have nothing in common: their masks are empty"
            self.summary.notices.append(text)

    def _stored(self, sets: Iterable[_Set], name: str) -> dict[str, Any]:
        """A value of each image whose mask file is there."""
        dataset = self.dataset
        flat = dataset.select_group_slices() if dataset.media_type == "group" else dataset
        view = fov.make_optimized_select_view(flat, [member.id for members in sets for member in members])
        rows = zip(*view.values(["id", f"{self.field}.mask_path", f"{self.field}_{name}"]), strict=True)
        return {sample_id: value for sample_id, path, value in rows if path and Path(path).is_file()}

    def _mask_set(self, shelf: PictureShelf, members: _Set, stamp: str) -> tuple[_Rows, dict[str, str]]:
        """Values of each member, and reasons of failures by sample."""
        pictures = shelf.fetch([member.source for member in members])
        found = [(member.id, pictures[member.source]) for member in members]
        reasons = {sample_id: picture for sample_id, picture in found if isinstance(picture, str)}
        seen: list[tuple[str, Picture]] = [(i, picture) for i, picture in found if not isinstance(picture, str)]
        if len(seen) == 1:
            reasons[seen.pop()[0]] = "no other image of the set could be read"
        blank = dict.fromkeys(_specs(self.field))
        rows: _Rows = [(i, i, {**blank, f"{self.field}_error": reason}) for i, reason in reasons.items()]
        if seen:
            outcome = self.matcher.compare_set([picture for _, picture in seen])
            # A set of which a part failed is tried again: that part may be restored.
            provenance = None if reasons else stamp
            for (i, picture), mask in zip(seen, outcome.masks, strict=True):
                rows.append((i, i, {**blank, **self._values(i, full_size(mask, picture.image_hw), provenance)}))
        return rows, reasons

    def _values(self, sample_id: str, mask: np.ndarray, provenance: str | None) -> dict[str, Any]:
        return {
            self.field: stored_mask(self.store, sample_id, mask),
            f"{self.field}_no_common_region": not mask.any(),
            f"{self.field}_fraction": float(mask.mean()),
            f"{self.field}_provenance": provenance,
        }


def _provenance(config: str, members: _Set) -> str:
    """Hash of the settings and of all images of a set, with the masks that stand in for their saliency."""
    stamps = [
        f"{member.id} {file_stamp(member.source.path)} {file_stamp(member.source.mask or '')}" for member in members
    ]
    return sample_provenance(config, *stamps)
