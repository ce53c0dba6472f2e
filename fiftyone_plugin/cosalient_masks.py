"""Masks of what a set of images has in common: of every group or cluster of a run, of a view, or of pairs."""

import os
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from .match_job import PictureShelf, Source
from .match_setup import MatcherChoice
from .pairs import is_pair_dataset, read_pairs
from .provenance import config_hash, file_stamp, sample_provenance
from .result_keys import check_result_key
from .runs import RunSummary, nothing_to_do, register_run, run_key_for
from .steps import plain_function

METHOD = "compute_cosalient_masks"

# A plain view is one set: of more images than this the user more likely forgot to say which groups.
_LARGEST_SET = 200

# A member that is to have its mask: id and file of its sample.
_Member = tuple[str, str]


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
    ``<field>_provenance``. A second run computes only sets that are new or have changed.

    Args:
        samples: a dataset or view of images, or of pairs.
        field: where the masks go.
        key: key of a run of ``find_duplicates``, ``find_exact_duplicates`` or ``cluster_objects`` on whole images.
        matcher: ``"training_free"``, ``"training_free_paper"``, or a trained one, by its name or folder.
        model: backbone of the training-free matcher; None takes the best one at hand.
        saliency: what stands out in an image, for the training-free matcher: ``"foreground"``, ``"one_pass"`` or
            ``"attention"``; ``"auto"`` leaves it to the matcher.
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
    check_field_name(samples, field)
    specs = _specs(field)
    check_result_key(samples, run_key_for(field), METHOD, specs)
    sets = _sets(samples, key)
    total = sum(map(len, sets))
    if not total:
        return nothing_to_do(METHOD)
    yield Progress(0, total, label="Loading the model")
    choice = MatcherChoice(matcher, model, saliency, refine, None, device, precision)
    found = choice.load()
    dataset, settings = samples._dataset, found.settings()
    declare_fields(samples, specs, {"method": METHOD, **settings})
    show_in_sidebar(samples, *readable_and_internal(specs))
    dataset.mask_targets = {**dataset.mask_targets, field: MASK_TARGETS}
    dataset.save()
    stamps = [_provenance(config_hash(METHOD, settings), members) for members in sets]
    stored = {} if overwrite else _stored(dataset, field, [sample_id for members in sets for sample_id, _ in members])
    store = MaskStore(samples, field, mask_dir)
    counts = dict.fromkeys(("total", "done", "skipped", "failed", "sets", "nothing"), 0) | {
        "total": total,
        "sets": len(sets),
    }
    failed: dict[str, str] = {}
    with ThreadPoolExecutor(num_workers, thread_name_prefix="selfsame-cosalient") as pool:
        shelf = PictureShelf(found, pool)
        for members, stamp in zip(sets, stamps, strict=True):
            if all(stored.get(sample_id) == stamp for sample_id, _ in members):
                counts["skipped"] += len(members)
                continue
            rows, reasons, nothing = _mask_set(found, shelf, members, field, store, stamp)
            write_items(dataset, Place(), rows)
            failed |= reasons
            if reasons and not skip_failures:
                raise ImageError(next(iter(reasons.values())))
            counts["done"] += len(members) - len(reasons)
            counts["nothing"] += nothing
            yield Progress(counts["done"], total, len(failed), counts["skipped"], label="Masking common objects")
    summary = RunSummary(run_key_for(field), METHOD, counts | {"failed": len(failed)}, failed=failed)
    summary.notices = choice.notices(found)
    if counts["nothing"]:
        summary.notices.append(
            f"{counts['nothing']:,} of {len(sets):,} sets have nothing in common: their masks are empty"
        )
    summary.details = {"mask_dir": str(store.folder), "matcher": matcher}
    summary.seconds = time.perf_counter() - started
    summary.images_per_second = counts["done"] / summary.seconds
    register_run(samples, summary, {"field": field, "key": key, **settings})
    return summary


compute_cosalient_masks = plain_function(compute_cosalient_masks_steps)


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


def _sets(samples: foc.SampleCollection, key: str | None) -> list[list[_Member]]:
    if is_pair_dataset(samples):
        if key is not None:
            raise ConfigError(f"key={key!r} names groups of images, but this is a dataset of pairs; leave it out")
        rows = read_pairs(samples)
        return [[(member.id, member.filepath) for member in (row.source, row.target)] for row in rows]
    samples = image_samples(samples)
    if key is None:
        return [_one_set(samples)] if samples.count() else []
    record = find_group_record(samples, key)
    if run_place(record).patches_field is not None:
        raise ConfigError(f"run {key!r} compared objects; masks are made of whole images, so use a run on images")
    fields = group_fields(record)
    view = samples.exists(fields.number).sort_by([*fields.order, ("_id", 1)])
    groups: dict[int, list[_Member]] = {}
    for sample_id, path, number in zip(*view.values(["id", "filepath", fields.number]), strict=True):
        groups.setdefault(number, []).append((sample_id, path))
    return [members for members in groups.values() if len(members) > 1]


def _one_set(samples: foc.SampleCollection) -> list[_Member]:
    count = samples.count()
    if count < 2:
        raise ConfigError("one image has nothing to share; select at least two, or name groups with key=...")
    if count > _LARGEST_SET:
        raise ConfigError(
            f"{count:,} images are too many for one set (at most {_LARGEST_SET}); name groups of a run with key=...,"
            " or select the images that show one object"
        )
    return list(zip(*samples.values(["id", "filepath"]), strict=True))


def _provenance(config: str, members: Sequence[_Member]) -> str:
    return sample_provenance(config, *(f"{sample_id} {file_stamp(path)}" for sample_id, path in members))


def _stored(dataset: fo.Dataset, field: str, ids: Sequence[str]) -> dict[str, str | None]:
    flat = dataset.select_group_slices() if dataset.media_type == "group" else dataset
    view = fov.make_optimized_select_view(flat, list(dict.fromkeys(ids)))
    return dict(zip(*view.values(["id", f"{field}_provenance"]), strict=True))


def _mask_set(
    matcher: PairMatcher, shelf: PictureShelf, members: Sequence[_Member], field: str, store: MaskStore, stamp: str
) -> tuple[list[tuple[str, str, dict[str, Any]]], dict[str, str], bool]:
    """Values of each member, reasons of failures by sample, and whether the set has nothing in common."""
    pictures = shelf.fetch([Source(path) for _, path in members])
    found = [(sample_id, pictures[Source(path)]) for sample_id, path in members]
    reasons = {sample_id: picture for sample_id, picture in found if isinstance(picture, str)}
    seen: list[tuple[str, Picture]] = [(i, picture) for i, picture in found if not isinstance(picture, str)]
    if len(seen) == 1:
        reasons[seen.pop()[0]] = "no other image of the set could be read"
    blank = dict.fromkeys(_specs(field))
    rows = [(i, i, {**blank, f"{field}_error": reason}) for i, reason in reasons.items()]
    if not seen:
        return rows, reasons, False
    outcome = matcher.compare_set([picture for _, picture in seen])
    # A set of which a part failed is tried again: that part may be restored.
    provenance = None if reasons else stamp
    for (sample_id, picture), mask in zip(seen, outcome.masks, strict=True):
        rows.append((sample_id, sample_id, {**blank, **_values(field, store, sample_id, mask, picture, provenance)}))
    return rows, reasons, outcome.no_common_region


def _values(
    field: str, store: MaskStore, sample_id: str, mask: np.ndarray, picture: Picture, provenance: str | None
) -> dict[str, Any]:
    path = store.write(sample_id, full_size(mask, picture.image_hw))
    return {
        field: fo.Segmentation(mask_path=str(path)).to_dict(),
        f"{field}_no_common_region": not mask.any(),
        f"{field}_fraction": float(mask.mean()),
        f"{field}_provenance": provenance,
    }
