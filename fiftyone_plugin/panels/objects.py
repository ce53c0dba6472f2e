"""The Objects panel: same-object clusters on a map and as a list; confirm, merge, split, name."""

from collections.abc import Mapping
from typing import Any

import fiftyone.operators as foo

from ...brain.errors import ConfigError
from .base import Answer, event
from .review import ReviewPanel

_HELP = """
Reviews same-object clusters, likely mistakes first. A click on a point of the map opens its cluster. Confirm, merge,
split and name; each decision can be undone, and **Cluster again** honours all of them.
"""


class ObjectsPanel(ReviewPanel):
    """Review of the runs of ``cluster_objects``."""

    component = "SelfsameObjects"
    methods = ("cluster_objects",)
    operators = ("cluster_objects", "compute_ffa", "export_decisions", "apply_decisions")
    sorts = ("risk", "similarity", "size")
    events = (*ReviewPanel.events, "map", "compute_map")

    @property
    def config(self) -> foo.PanelConfig:
        return foo.PanelConfig(
            name="selfsame_objects",
            label="Objects",
            icon="category",
            surfaces="grid",
            category=foo.Categories.CURATE,
            help_markdown=_HELP.strip(),
        )

    def start(self, ctx: Any) -> Answer:
        from ..vectors import vector_fields

        if ctx.dataset is not None and not vector_fields(ctx.dataset):
            return {
                "operator": "compute_ffa",
                "label": "Compute embeddings",
                "reason": "Objects are recognised by their embeddings, and this dataset has none yet.",
            }
        return {
            "operator": "cluster_objects",
            "label": "Cluster objects",
            "reason": "The images of this dataset have not been clustered by object yet.",
        }

    @event
    def map(self, ctx: Any) -> Answer:
        """Points of the map with their clusters; see :func:`.cluster_map.read_map`."""
        from .cluster_map import read_map

        return read_map(ctx.dataset, self.record(ctx))

    @event
    def compute_map(self, ctx: Any) -> Answer:
        """Makes a UMAP of the run's vectors as a visualization run, which the Embeddings panel shows as well."""
        from .cluster_map import compute_map, read_map

        record = self.record(ctx)
        compute_map(ctx.dataset, record)
        return read_map(ctx.dataset, record)

    @event
    def decide(self, ctx: Any) -> Answer:
        """As in every panel; besides, a name must be given for ``"name"``."""
        if ctx.params.get("action") == "name" and not str(ctx.params.get("name") or "").strip():
            raise ConfigError("Type a name for the cluster.")
        return super()._decide(ctx)

    def _page(self, ctx: Any, record: Mapping[str, Any]) -> Answer:
        answer = super()._page(ctx, record)
        names = self._names(ctx, record, [row["group"] for row in answer["page"]["groups"]])
        for row in answer["page"]["groups"]:
            row["name"] = names.get(row["group"])
        return answer

    def _opened(self, ctx: Any, record: Mapping[str, Any], group: int) -> Answer:
        return super()._opened(ctx, record, group) | {"name": self._names(ctx, record, [group]).get(group)}

    def _names(self, ctx: Any, record: Mapping[str, Any], groups: list[int]) -> dict[int, str]:
        from .cluster_map import cluster_names

        return cluster_names(ctx.dataset, record, groups)
