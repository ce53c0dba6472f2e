"""Looking at same-object clusters: images, or objects as patches, cluster after cluster or likely mistakes first."""

import fiftyone.core.collections as foc
from fiftyone import ViewExpression, ViewField

from ..brain.errors import ConfigError
from .cluster_store import ClusterFields, find_cluster_record
from .dataset_io import image_samples
from .group_table import run_place


def show_object_clusters(
    samples: foc.SampleCollection,
    key: str = "objects",
    *,
    min_size: int = 2,
    outliers_first: bool = False,
    as_groups: bool = False,
) -> foc.SampleCollection:
    """The view of all clusters: largest cluster first, its surest member first; patches where objects were clustered.

    The view filters and sorts by indexed fields, so it may be saved, and follows the data when it is opened again.

    Args:
        samples: a dataset or view; only its samples (and of these the labels that it shows) are shown.
        key: key of a run of ``cluster_objects``.
        min_size: only clusters with at least this many members (in the whole run).
        outliers_first: instead of cluster after cluster, the members that fit worst first: likely mistakes.
        as_groups: return FiftyOne's dynamic groups, one tile per cluster.

    Raises:
        ConfigError: no such run, or an option that cannot work.
    """
    record = find_cluster_record(samples, key)
    if isinstance(min_size, bool) or not isinstance(min_size, int) or min_size < 2:
        raise ConfigError(f"min_size={min_size!r} must be a whole number of at least 2")
    if outliers_first and as_groups:
        raise ConfigError(
            "outliers_first and as_groups exclude each other: dynamic groups are shown cluster by cluster"
        )
    fields = ClusterFields(key, run_place(record))
    view, prefix = _members(image_samples(samples), fields, min_size), ""
    if (patches := fields.place.patches_field) is not None:
        view, prefix = view.to_patches(patches), f"{patches}."
    cluster, confidence, outlier = (f"{prefix}{fields.name(name)}" for name in ("cluster", "confidence", "outlier"))
    if as_groups:
        return view.group_by(cluster, order_by=confidence, reverse=True)
    return view.sort_by([(outlier, -1)] if outliers_first else [(cluster, 1), (confidence, -1)])


def _members(samples: foc.SampleCollection, fields: ClusterFields, min_size: int) -> foc.SampleCollection:
    condition = {"cluster": 0, "size": min_size} if min_size > 2 else {"cluster": 0}
    view = samples.match({fields.path(name): {"$gte": least} for name, least in condition.items()})
    if (patches := fields.place.patches_field) is None:
        return view
    # The match uses the index; the filter then leaves out the other objects of the same images.
    checks = [ViewField(fields.name(name)) >= least for name, least in condition.items()]
    return view.filter_labels(patches, ViewExpression.all(checks))
