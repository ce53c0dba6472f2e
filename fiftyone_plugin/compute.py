"""Foreground masks and FFA vectors as fields of a dataset: from the user's options to jobs for the engine."""

import os
from collections.abc import Generator
from dataclasses import dataclass

import fiftyone.core.collections as foc

from ..brain.backbones import Backbone
from ..brain.errors import ConfigError
from ..brain.ffa import FFAConfig, FFAExtractor, ffa_preset
from ..brain.ffa_objects import ObjectRoute
from ..brain.foreground import PixelForeground, TokenForeground, load_foreground
from ..brain.token_cache import TokenCache
from .dataset_io import FIELD_PREFIX, check_field_name, check_own_field, image_samples
from .engine.local import Job, Method, Progress, check_counts, stream
from .followups import Followups
from .label_inputs import DetectionsInput, ForegroundInput
from .loading import default_batch_size, load_model
from .mask_store import MASK_TARGETS, MaskStore
from .methods import FFAMethod, ObjectsMethod, PixelMaskMethod, TokenMaskMethod, other_settings
from .runs import RunSummary, check_run_key, nothing_to_do, run_key_for
from .steps import plain_function

# Whole photographs wait in full size for a pixel foreground: a batch of them takes memory before it saves time.
_PIXEL_BATCH = 4


def compute_foreground_steps(
    samples: foc.SampleCollection,
    method: str = "one_pass",
    field: str = "foreground",
    *,
    model: str | None = None,
    mask_dir: str | os.PathLike | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    num_workers: int = 2,
    cache_tokens: bool = False,
    overwrite: bool = False,
    skip_failures: bool = True,
    run_key: str | None = None,
) -> Generator[Progress, None, RunSummary]:
    """Finds the foreground of every image and stores it as a ``Segmentation`` whose mask is a PNG file.

    Masks have the size of the upright image; 255 is foreground. Besides ``field`` it writes ``<field>_fraction``,
    ``<field>_error`` and ``<field>_provenance``. A second run computes only what is missing or out of date.

    Args:
        samples: a dataset or view of images; of a grouped one, the image slices are taken.
        method: ``"one_pass"`` (from a backbone's tokens), ``"grabcut"`` (no weights), or ``"carvekit"`` and its kin.
        field: where the masks go.
        model: backbone of ``"one_pass"``; None takes the best one at hand.
        mask_dir: folder of the PNG files; None is ``$SELFSAME_HOME/masks/<dataset>/<field>``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        precision: number format of the backbone's matrix products: ``"auto"``, ``"fp32"``, ``"bf16"``, ``"fp16"``.
        batch_size: most images on the device at once; None chooses by device and method. Halved when memory runs out.
        num_workers: decode threads.
        cache_tokens: keep the encoder's tokens on disk (``$SELFSAME_HOME/tokens``, at most 10 GB), so that other
            settings on the same images need no encoder. About half a megabyte per image.
        overwrite: compute again what is up to date.
        skip_failures: put the reason of a failure into ``<field>_error`` and go on; False raises at the first.
        run_key: key of the run record; None makes one of ``field``.

    Returns:
        a :class:`RunSummary`.

    Raises:
        ConfigError: an option cannot work.
        ModelError: a model cannot be loaded.
    """
    check_counts(batch_size, num_workers)
    samples = image_samples(samples)
    check_field_name(samples, field)
    check_own_field(samples, field)
    key = run_key or run_key_for(field)
    check_run_key(samples, key, "compute_foreground")
    _check_mask_method(method)
    total = samples.count()
    if not total:
        return nothing_to_do("compute_foreground")
    yield Progress(0, total, label="Loading the model")
    store = MaskStore(samples, field, mask_dir)
    foreground, notices = load_foreground(method, device=device), []
    config = {"field": field, "precision": precision}
    if hasattr(foreground, "coverage"):
        backbone, notices = load_model(model, device, precision)
        extractor = FFAExtractor(backbone, foreground, token_cache=TokenCache() if cache_tokens else None)
        masks: Method = TokenMaskMethod(extractor, field, store, num_workers, config, cache_tokens)
        batch_size = _batch_size(backbone, foreground) if batch_size is None else batch_size
    else:
        masks = PixelMaskMethod(foreground, field, store, num_workers, config)
        batch_size = _PIXEL_BATCH if batch_size is None else batch_size

    def finish(summary: RunSummary) -> Generator[Progress, None, None]:
        summary.notices[:0] = notices
        summary.details["mask_dir"] = str(store.folder)
        dataset = samples._dataset
        dataset.mask_targets = {**dataset.mask_targets, field: MASK_TARGETS}
        dataset.save()
        yield from ()

    return (
        yield from stream(
            Job(
                samples,
                masks,
                run_key=key,
                label=f"Computing {field}",
                batch_size=batch_size,
                num_workers=num_workers,
                overwrite=overwrite,
                skip_failures=skip_failures,
                finish=finish,
            )
        )
    )


def compute_ffa_steps(
    samples: foc.SampleCollection,
    field: str = "ffa",
    *,
    model: str | None = None,
    foreground: str | None = None,
    preset: str = "default",
    encode: str | None = None,
    pooling: str | None = None,
    weights: str | None = None,
    resize: str | None = None,
    size: int | None = None,
    objects_field: str | None = None,
    object_route: ObjectRoute = "crop",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    num_workers: int = 2,
    cache_tokens: bool = False,
    overwrite: bool = False,
    skip_failures: bool = True,
    similarity_key: str | None = None,
    visualization_key: str | None = None,
    run_key: str | None = None,
) -> Generator[Progress, None, RunSummary]:
    """Computes FFA vectors, of images or of the objects in them, and stores them in a field.

    Besides the vectors (``VectorField``, float32, unit length) it writes ``<field>_foreground_fraction``,
    ``<field>_n_patches``, ``<field>_fallback``, ``<field>_error`` and ``<field>_provenance``; with ``objects_field``
    the first four are attributes of each detection, and the last two are ``<objects_field>_<field>_error`` and
    ``_provenance`` of the sample. A second run computes only what is missing or out of date.

    Args:
        samples: a dataset or view of images; of a grouped one, the image slices are taken.
        field: where the vectors go.
        model: backbone: a name of ``list_backbones()``, a hub id or a local folder; None takes the preset's, or the
            best one at hand.
        foreground: ``"one_pass"``, ``"grabcut"``, ``"carvekit"`` and its kin, ``"field:<name>"`` for the dataset's own
            Segmentation or Detections, ``"none"`` for the average of all patches; None takes the preset's.
        preset: ``"default"``, or ``"paper"`` for the published pipeline; the next five options override parts of it.
        encode: ``"original"`` or ``"cutout"``.
        pooling: ``"patch"`` or ``"cls"``.
        weights: ``"hard"`` or ``"soft"``.
        resize: ``"squash"``, ``"letterbox"`` or ``"aspect"``.
        size: side of the encoder's input in pixels, a multiple of its patch.
        objects_field: Detections field; gives one vector per detection instead of one per image.
        object_route: ``"crop"`` encodes each object by itself; ``"image"`` encodes the image once for all its objects.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        precision: number format of the backbone's matrix products: ``"auto"``, ``"fp32"``, ``"bf16"``, ``"fp16"``.
        batch_size: most images on the device at once; None chooses by device. Halved when memory runs out.
        num_workers: decode threads.
        cache_tokens: keep the encoder's tokens on disk (``$SELFSAME_HOME/tokens``, at most 10 GB), so that other
            settings on the same images need no encoder. About half a megabyte per image.
        overwrite: compute again what is up to date.
        skip_failures: put the reason of a failure into the error field and go on; False raises at the first.
        similarity_key: also make a FiftyOne similarity index of this brain key (the App's sort by similarity).
        visualization_key: also make a FiftyOne visualization of this brain key (the App's Embeddings panel).
        run_key: key of the run record; None makes one of the field names.

    Returns:
        a :class:`RunSummary`.

    Raises:
        ConfigError: an option cannot work.
        ModelError: a model cannot be loaded.
    """
    check_counts(batch_size, num_workers)
    samples = image_samples(samples)
    check_field_name(samples, field)
    check_own_field(samples, f"{objects_field}.detections.{field}" if objects_field else field)
    followups = Followups(field, objects_field, similarity_key, visualization_key)
    followups.check(samples)
    key = run_key or run_key_for(f"{objects_field}_{field}" if objects_field else field)
    check_run_key(samples, key, "compute_ffa")
    chosen = ffa_preset(preset)
    config = chosen.config_with(encode=encode, pooling=pooling, weights=weights, resize=resize, size=size)
    foreground = foreground or chosen.foreground
    total = samples.count()
    if not total:
        return nothing_to_do("compute_ffa")
    source = _FFASource(samples, field, foreground, objects_field, object_route, precision, cache_tokens)
    yield Progress(0, total, label="Loading the model")
    backbone, notices = load_model(model or chosen.backbone, device, precision)
    finder = source.finder(device)
    batch_size = _batch_size(backbone, finder) if batch_size is None else batch_size
    method = source.method(backbone, finder, config, batch_size)
    notices += other_settings(samples, method)

    def finish(summary: RunSummary) -> Generator[Progress, None, None]:
        summary.notices[:0] = notices
        summary.details.update(model=backbone.name, foreground=foreground, preset=preset)
        yield from followups.run(samples, summary)

    return (
        yield from stream(
            Job(
                samples,
                method,
                run_key=key,
                label=f"Computing {field}",
                batch_size=batch_size,
                num_workers=num_workers,
                overwrite=overwrite,
                skip_failures=skip_failures,
                finish=finish,
            )
        )
    )


compute_foreground = plain_function(compute_foreground_steps)
compute_ffa = plain_function(compute_ffa_steps)


@dataclass(frozen=True)
class _FFASource:
    """Where vectors come from: whole images or objects, with a foreground method or the dataset's own labels."""

    samples: foc.SampleCollection
    field: str
    foreground: str
    objects_field: str | None
    object_route: ObjectRoute
    precision: str
    cache_tokens: bool

    def __post_init__(self) -> None:
        if self.objects_field is not None and self.label_field is not None:
            raise ConfigError(
                f"foreground={self.foreground!r} cannot be combined with objects_field: detections bring their own "
                "masks; choose 'one_pass', 'grabcut' or 'none' for those without"
            )

    @property
    def label_field(self) -> str | None:
        """The field that ``foreground="field:<name>"`` names."""
        named = self.foreground.startswith(FIELD_PREFIX)
        return self.foreground.removeprefix(FIELD_PREFIX) if named else None

    def finder(self, device: str) -> PixelForeground | TokenForeground | None:
        """The foreground method; None where labels take its place, or all patches are averaged."""
        return None if self.label_field else load_foreground(self.foreground, device=device)

    def method(
        self,
        backbone: Backbone,
        finder: PixelForeground | TokenForeground | None,
        config: FFAConfig,
        batch_size: int,
    ) -> Method:
        """The computation to stream."""
        given = ForegroundInput(self.samples, self.label_field) if self.label_field else None
        extractor = FFAExtractor(backbone, finder, config, TokenCache() if self.cache_tokens else None)
        record = {"field": self.field, "foreground": self.foreground, "precision": self.precision}
        if self.objects_field is None:
            return FFAMethod(extractor, self.field, given, record, self.cache_tokens)
        objects = DetectionsInput(self.samples, self.objects_field, "objects_field")
        record["objects_field"] = self.objects_field
        route, cached = self.object_route, self.cache_tokens
        return ObjectsMethod(extractor, self.field, objects, route, batch_size, record, cached)


def _batch_size(backbone: Backbone, finder: PixelForeground | TokenForeground | None) -> int:
    if hasattr(finder, "masks") and not getattr(finder, "in_worker", False):
        return _PIXEL_BATCH
    return default_batch_size(backbone)


def _check_mask_method(method: str) -> None:
    if method == "none" or method.startswith(FIELD_PREFIX):
        raise ConfigError(
            f"method={method!r} finds no foreground; choose 'one_pass', 'grabcut' or 'carvekit' (compute_ffa takes "
            f"foreground={method!r} directly)"
        )
