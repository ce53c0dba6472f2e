"""What all that compares images pair by pair shares: the choice of a matcher, and what a user should know of it."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import fiftyone.core.view as fov

from ..brain.backbones.default import default_backbone_notice
from ..brain.backbones.device import Precision
from ..brain.cosalient.comparison import PairMatcher
from ..brain.cosalient.loader import load_pair_matcher
from ..brain.cosalient.names import FREE_MATCHERS, TRAINING_FREE
from ..brain.errors import ConfigError
from .dataset_io import FIELD_PREFIX
from .match_job import Source
from .provenance import config_hash, file_stamp, sample_provenance
from .runs import RunSummary, register_run


@dataclass(frozen=True)
class MatcherChoice:
    """The options of a matcher, as the plain functions take them.

    Attributes:
        matcher: ``"training_free"``, ``"training_free_paper"``, or a trained one, by its name or folder.
        model: backbone of the training-free matcher; None takes the best one at hand.
        saliency: ``"auto"``, a method of the training-free matcher, or ``"field:<name>"``.
        refine: whether masks get the edges of the picture; None leaves it to the matcher.
        threshold: least score of a match; None takes the matcher's.
        device, precision: where and in which number format it runs.
    """

    matcher: str | os.PathLike = TRAINING_FREE
    model: str | None = None
    saliency: str = "auto"
    refine: bool | None = None
    threshold: float | None = None
    device: str = "auto"
    precision: Precision = "auto"

    @property
    def mask_field(self) -> str | None:
        """The field whose masks stand in for the saliency."""
        named = isinstance(self.saliency, str) and self.saliency.startswith(FIELD_PREFIX)
        return self.saliency.removeprefix(FIELD_PREFIX) if named else None

    def load(self) -> PairMatcher:
        """The matcher, with its threshold.

        Raises:
            ConfigError: an option cannot work, or options do not go together.
            ModelError: a model cannot be loaded.
        """
        threshold = self.threshold
        if threshold is not None and not (isinstance(threshold, int | float) and 0 <= threshold <= 1):
            raise ConfigError(f"threshold={threshold!r} must be a number between 0 and 1")
        found = load_pair_matcher(
            self.matcher,
            model=self.model,
            saliency="auto" if self.mask_field is not None else self.saliency,
            refine=self.refine,
            device=self.device,
            precision=self.precision,
        )
        if threshold is not None:
            found.threshold = float(threshold)
        return found

    def notices(self, found: PairMatcher, *, scores: bool = True) -> list[str]:
        """What a user should know of the matcher that was loaded; of its scores only where they play a part."""
        notices = []
        if scores and getattr(found, "calibrated", True) is False:
            notices.append(
                f"Scores with {found.settings()['model']!r} are not calibrated: label some pairs and run train_matcher "
                "with kind='logistic', or choose a threshold yourself."
            )
        default = self.model is None and os.fspath(self.matcher) in FREE_MATCHERS
        if default and (notice := default_backbone_notice()):
            notices.append(notice)
        return notices


def outcome_stamp(method: str, matcher: PairMatcher) -> str:
    """Hash of all settings that masks and scores depend on; the threshold only decides what a score means."""
    return config_hash(method, {name: value for name, value in matcher.settings().items() if name != "threshold"})


def pair_provenance(stamp: str, source: Source, target: Source) -> str:
    """Hash of all that the outcome of a pair was made from, see :func:`outcome_stamp`."""
    files = (source.path, target.path, source.mask or "", target.mask or "")
    return sample_provenance(stamp, *map(file_stamp, files))


def mask_files(samples: foc.SampleCollection, field: str | None, ids: Sequence[str]) -> Mapping[str, str | None]:
    """The mask file of each sample, to stand in for the saliency; empty without a field.

    Args:
        samples: a flat collection.
        field: a Segmentation whose masks are picture files.

    Raises:
        ConfigError: there is no such field, or a mask is in the database instead of a file.
    """
    if field is None:
        return {}
    found = samples.get_field(field)
    if getattr(found, "document_type", None) is not fo.Segmentation:
        names = ", ".join(samples.get_field_schema(embedded_doc_type=fo.Segmentation)) or "none"
        raise ConfigError(f"saliency='{FIELD_PREFIX}{field}' is no Segmentation field; fields of that kind: {names}")
    view = fov.make_optimized_select_view(samples, list(dict.fromkeys(ids)))
    if view.match({f"{field}.mask": {"$ne": None}}).count():
        raise ConfigError(
            f"saliency='{FIELD_PREFIX}{field}': some masks are in the database and not in files; write them to files "
            "with label.export_mask(path, update=True)"
        )
    return dict(zip(*view.values(["id", f"{field}.mask_path"]), strict=True))


@contextmanager
def recorded(
    samples: foc.SampleCollection, summary: RunSummary, config: Mapping[str, Any], started: float
) -> Iterator[None]:
    """Completes the summary and writes the run record, whether the work ends, fails or is interrupted.

    Args:
        samples: where the record goes.
        summary: filled by the work.
        config: JSON-able settings.
        started: ``time.perf_counter()`` at the start.
    """
    status, reason = "completed", None
    try:
        yield
    except BaseException as error:
        failed = isinstance(error, Exception)
        status, reason = ("failed", str(error)) if failed else ("interrupted", None)
        raise
    finally:
        summary.seconds = time.perf_counter() - started
        summary.counts["failed"] = len(summary.failed)
        register_run(samples, summary, config, status=status, error=reason)
