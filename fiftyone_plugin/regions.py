"""Regions of images and a vector for each, as fields of a dataset: from the user's options to a job for the engine."""

from collections.abc import Generator

import fiftyone as fo
import fiftyone.core.collections as foc

from ..brain.claid.presets import PIPELINE_OPTIONS, region_extractor, region_preset
from ..brain.errors import ConfigError
from .dataset_io import check_field_name, check_own_field, image_samples
from .engine.local import Job, Progress, check_counts, stream
from .followups import Followups
from .loading import default_batch_size, load_model
from .methods import other_settings
from .region_fields import METHOD, VECTOR, RegionFields
from .region_method import RegionsMethod
from .region_vectors import STORAGES, Storage, VectorFiles, storage_fields
from .runs import RunSummary, check_run_key, nothing_to_do, run_key_for
from .steps import plain_function


def compute_claid_regions_steps(
    samples: foc.SampleCollection,
    field: str = "regions",
    *,
    model: str | None = None,
    preset: str = "default",
    descriptor: str | None = None,
    layer: str | None = None,
    pooling: str | None = None,
    area: str | None = None,
    max_side: int | None = None,
    short_side: int | None = None,
    long_side: int | None = None,
    enlarge: bool | None = None,
    alpha: float | None = None,
    tau1: float | None = None,
    tau2: float | None = None,
    theta: float | None = None,
    min_patches: int | None = None,
    connectivity: str | None = None,
    inertia: float | None = None,
    init: str | None = None,
    order: str | None = None,
    seed: int | None = None,
    cut: str | None = None,
    box_mode: str | None = None,
    storage: Storage = "sample",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    num_workers: int = 2,
    overwrite: bool = False,
    skip_failures: bool = True,
    similarity_key: str | None = None,
    visualization_key: str | None = None,
    run_key: str | None = None,
) -> Generator[Progress, None, RunSummary]:
    """Finds the regions of every image, coarse to fine and of whatever class, and describes each by a vector (CLAID).

    It writes ``field``, Detections with a mask of patches and ``level``, ``parent_id``, ``saliency``,
    ``connectivity``, ``area`` and ``row``; ``<field>_count``; the vectors (float16, unit length); ``<field>_error``
    and ``<field>_provenance``. A second run computes only what is missing or out of date.

    The authors of the method (arXiv:2506.16745) state a Chinese patent on it, ZL202410173702.3.

    Args:
        samples: a dataset or view of images; of a grouped one, the image slices are taken.
        field: where the regions go.
        model: encoder whose patch tokens are decomposed: a name of ``list_backbones()``, a hub id or a local folder;
            None takes the preset's, or the best one at hand.
        preset: ``"default"``; ``"paper"`` or ``"code"`` for what the paper says and what its program does, with
            DINO ViT-B/8 and ResNet-50. The next options override parts of it.
        descriptor: what describes the regions: ``"tokens"`` of the detector's encoder, ``"resnet50"``,
            ``"resnet101"``, ``"vgg16"``, any encoder, or SigLIP (``"siglip-base"`` ...) for search by text.
        layer: layer of a ResNet: ``"layer4.0"``, ``"layer4.1"`` or ``"layer4.2"``.
        pooling: ``"gem"`` (feature maps without negative values only), ``"mean"``, ``"max"``, or ``"attention"``
            (SigLIP's own, in the space of words).
        area: a vector covers the region's ``"mask"``, or all of its ``"box"``.
        max_side: longest side in pixels of the picture that the descriptor sees; None keeps the original size.
        short_side: pixels to which the short side of an image is reduced before it is decomposed.
        long_side: most pixels of the long side.
        enlarge: whether smaller images are enlarged to that size.
        alpha: patches are linked whose tokens have a larger cosine.
        tau1: regions of a lower connectivity are cut further.
        tau2: regions of a higher saliency are kept.
        theta: share of an image's patches that count as having high energy.
        min_patches: smaller regions are dropped.
        connectivity: ``"program"`` or ``"paper"``: whether a patch counts as linked to itself.
        inertia: how much better the other side must be before a patch changes sides; the paper's rule is 0.
        init: first sides: ``"affinity"`` or ``"nearest"`` (the paper's).
        order: in which patches are visited: ``"hash"``, ``"raster"`` or ``"pyrandom"``.
        seed: of the order.
        cut: ``"ksums"``, or ``"ncut"`` for normalised cuts, the paper's baseline.
        box_mode: ``"exact"``, or ``"reference"`` for the boxes of the published program.
        storage: keep vectors in one array per ``"sample"`` (``<field>_vectors``), on the ``"labels"`` (attribute
            ``vector``), as FiftyOne's own patch similarity and maps want them, or in ``"files"`` under
            ``$SELFSAME_HOME`` (``<field>_vectors_path``), which keeps a large database small.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        precision: number format of the encoders' matrix products: ``"auto"``, ``"fp32"``, ``"bf16"``, ``"fp16"``.
        batch_size: most images on the device at once; None chooses by device. Halved when memory runs out.
        num_workers: decode threads.
        overwrite: compute again what is up to date.
        skip_failures: put the reason of a failure into ``<field>_error`` and go on; False raises at the first.
        similarity_key: also make a FiftyOne similarity index of the regions (needs ``storage="labels"``).
        visualization_key: also make a FiftyOne map of the regions (needs ``storage="labels"``).
        run_key: key of the run record; None makes one of ``field``.

    Returns:
        a :class:`RunSummary`.

    Raises:
        ConfigError: an option cannot work.
        ModelError: a model cannot be loaded.
    """
    options = {name: value for name, value in locals().items() if name in PIPELINE_OPTIONS}
    check_counts(batch_size, num_workers)
    samples = image_samples(samples)
    followups = Followups(VECTOR, field, similarity_key, visualization_key)
    _check_fields(samples, field, storage, followups)
    key = run_key or run_key_for(field)
    check_run_key(samples, key, METHOD)
    chosen = region_preset(preset)
    if not samples.count():
        return nothing_to_do(METHOD)
    yield Progress(0, samples.count(), label="Loading the model")
    backbone, notices = load_model(model or chosen.backbone, device, precision)
    extractor = region_extractor(preset, backbone, options, max_side=max_side, device=device, precision=precision)
    files = VectorFiles(samples, field, num_workers) if storage == "files" else None
    method = RegionsMethod(extractor, field, storage, files, {"field": field, "storage": storage})
    notices += other_settings(samples, method)

    def finish(summary: RunSummary) -> Generator[Progress, None, None]:
        summary.notices[:0] = notices
        summary.details.update(model=backbone.name, descriptor=extractor.describer.name, preset=preset, storage=storage)
        summary.counts["regions"] = int(samples.sum(RegionFields(field).count) or 0)
        _colour_by_region(samples._dataset)
        yield from followups.run(samples, summary)

    return (
        yield from stream(
            Job(
                samples,
                method,
                run_key=key,
                label=f"Computing {field}",
                batch_size=default_batch_size(backbone) if batch_size is None else batch_size,
                num_workers=num_workers,
                overwrite=overwrite,
                skip_failures=skip_failures,
                finish=finish,
            )
        )
    )


compute_claid_regions = plain_function(compute_claid_regions_steps)


def _check_fields(samples: foc.SampleCollection, field: str, storage: Storage, followups: Followups) -> None:
    check_field_name(samples, field)
    check_own_field(samples, field)
    if storage not in STORAGES:
        raise ConfigError(f"storage={storage!r} is unknown; use one of {', '.join(STORAGES)}")
    if storage != "labels":
        for path in storage_fields(RegionFields(field), storage):
            check_own_field(samples, path)
        for option in ("similarity_key", "visualization_key"):
            if getattr(followups, option) is not None:
                raise ConfigError(f"{option} needs the vectors on the regions themselves: add storage='labels'")
    followups.check(samples)


def _colour_by_region(dataset: fo.Dataset) -> None:
    """Lets the App tell the regions of an image apart, unless the user has chosen colours for this dataset."""
    if dataset.app_config.color_scheme is None:
        dataset.app_config.color_scheme = fo.ColorScheme(color_by="instance", opacity=0.5)
        dataset.save()
