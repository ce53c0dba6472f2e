"""What FiftyOne Brain can do with vectors in a field: sort by similarity, and a map for the Embeddings panel."""

from collections.abc import Iterator
from dataclasses import dataclass

import fiftyone.brain as fob
import fiftyone.core.collections as foc
from fiftyone import ViewField

from ..brain.errors import ConfigError
from .dataset_io import show_in_sidebar
from .engine.local import Progress
from .runs import RunSummary

_SEED = 51

# UMAP's neighbourhood graph says nothing on fewer points than this, and its initialisation fails on a handful.
_MIN_UMAP = 10
_UMAP_NEIGHBORS = 15
_MIN_POINTS = 3


@dataclass(frozen=True)
class Followups:
    """Brain runs to make once the vectors are written.

    Attributes:
        field: the vectors: a sample field, or the attribute of the detections in ``objects_field``.
        objects_field: Detections field, or None for vectors of whole images.
        similarity_key: brain key of a similarity index, or None.
        visualization_key: brain key of a two-dimensional map, or None.
    """

    field: str
    objects_field: str | None = None
    similarity_key: str | None = None
    visualization_key: str | None = None

    def check(self, samples: foc.SampleCollection) -> None:
        """Refuses brain keys that are invalid or belong to other runs, before any work is done.

        Raises:
            ConfigError: see above.
        """
        for option in ("similarity_key", "visualization_key"):
            key = getattr(self, option)
            if key is None:
                continue
            if not key.isidentifier():
                raise ConfigError(f"{option}={key!r} is not a valid brain key; use letters, digits and underscores")
            kind = option.removesuffix("_key")
            if samples.has_brain_run(key) and not self._is_ours(samples, key, kind):
                raise ConfigError(
                    f"{option}={key!r} is taken by another brain run; choose another key, or delete that run with "
                    f"dataset.delete_brain_run({key!r})"
                )
        if self.similarity_key is not None and self.similarity_key == self.visualization_key:
            raise ConfigError(
                f"similarity_key and visualization_key are both {self.similarity_key!r}; they must differ"
            )

    def run(self, samples: foc.SampleCollection, summary: RunSummary) -> Iterator[Progress]:
        """Makes the brain runs; what cannot be made is explained in ``summary.notices`` and costs no vector."""
        for kind, key, make in (
            ("similarity", self.similarity_key, self._similarity),
            ("visualization", self.visualization_key, self._visualization),
        ):
            if key is None:
                continue
            yield Progress(0, 0, label=f"Computing the {kind} {key!r}")
            present = self._with_vectors(samples)
            if samples.has_brain_run(key):
                samples._root_dataset.delete_brain_run(key)
            try:
                made = make(present, key, summary)
            except (ValueError, TypeError, RuntimeError) as error:
                summary.notices.append(f"{kind} {key!r} could not be computed: {' '.join(str(error).split())}")
                continue
            if made:
                summary.details[f"{kind}_key"] = key

    def _similarity(self, samples: foc.SampleCollection, key: str, summary: RunSummary) -> bool:
        if not self._count(samples):
            summary.notices.append(f"similarity {key!r} was not computed: no vectors")
            return False
        fob.compute_similarity(
            samples, patches_field=self.objects_field, embeddings=self.field, brain_key=key, backend="sklearn"
        )
        return True

    def _visualization(self, samples: foc.SampleCollection, key: str, summary: RunSummary) -> bool:
        n = self._count(samples)
        if n < _MIN_POINTS:
            summary.notices.append(f"visualization {key!r} was not computed: {n} vectors, needs {_MIN_POINTS}")
            return False
        options: dict[str, object] = {"method": "pca"}
        if n >= _MIN_UMAP:
            neighbors = min(_UMAP_NEIGHBORS, n - 1)
            options = {"method": "umap", "num_neighbors": neighbors, "metric": "cosine", "verbose": False}
        else:
            summary.notices.append(f"visualization {key!r} shows principal components: {n} vectors are few for UMAP")
        fob.compute_visualization(
            samples,
            patches_field=self.objects_field,
            embeddings=self.field,
            points_field=f"{key}_points",
            brain_key=key,
            seed=_SEED,
            progress=False,
            **options,
        )
        if self.objects_field is None:
            show_in_sidebar(samples, [], [f"{key}_points"])
        return True

    def _with_vectors(self, samples: foc.SampleCollection) -> foc.SampleCollection:
        if self.objects_field is None:
            return samples.exists(self.field)
        return samples.filter_labels(self.objects_field, ViewField(self.field).exists())

    def _count(self, samples: foc.SampleCollection) -> int:
        return samples.count() if self.objects_field is None else samples.count(f"{self.objects_field}.detections")

    def _is_ours(self, samples: foc.SampleCollection, key: str, kind: str) -> bool:
        """A run of the same kind on the same vectors: made by us before, or as good as ours."""
        config = samples.get_brain_info(key).config
        same_vectors = getattr(config, "embeddings_field", None) == self.field
        return config.type == kind and same_vectors and config.patches_field == self.objects_field
