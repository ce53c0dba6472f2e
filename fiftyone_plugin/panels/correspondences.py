"""The Correspondences panel: keypoints of one image found in another, which of them are wrong, and why."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo

from ...brain.errors import ConfigError
from ..pairs import flat_pairs, is_pair_dataset
from .base import Answer, event
from .pair_datasets import PairsPanel, requested_pair

_HELP = """
Shows where the keypoints of one image were found in another, and which were taken for their mirror partner or for
another part that looks alike. Click a point to see what else it resembles. Say with a key whether a pair is right;
exchange left and right where the annotation is wrong. Everything can be undone.
"""

OK, SWAP = "ok", "swap"
TAGS = {OK: "correspondence:ok", SWAP: "correspondence:swap"}

_FILTERS = ("sort", "category", "kind", "decision", "suspects", "page")


class CorrespondencesPanel(PairsPanel):
    """Inspector of the runs of ``compute_correspondences``."""

    component = "SelfsameCorrespondences"
    workspace = "Correspondences"
    methods = ("compute_correspondences",)
    operators = ("create_pairs", "compute_correspondences", "find_symmetry_errors", "evaluate_correspondences")
    events = (
        *("overview", "list_pairs", "open_pair", "heatmap", "figures", "decide", "undo", "exchange", "undo_exchange"),
        *("show", "show_view", "open_dataset", "prompt"),
    )

    @property
    def config(self) -> foo.PanelConfig:
        return foo.PanelConfig(
            name="selfsame_correspondences",
            label="Correspondences",
            icon="polyline",
            surfaces="grid modal",
            category=foo.Categories.CURATE,
            help_markdown=_HELP.strip(),
        )

    def on_change_current_sample(self, ctx: Any) -> None:
        """Another sample in the modal: its pair is to be shown."""
        ctx.panel.set_state("current", _current(ctx))

    @event
    def heatmap(self, ctx: Any) -> Answer:
        """What the keypoint ``name`` resembles; see :func:`.correspondence_heatmap.similarity_heatmap`."""
        from .correspondence_heatmap import similarity_heatmap

        return similarity_heatmap(ctx.dataset, self.record(ctx), requested_pair(ctx), str(ctx.params.get("name")))

    @event
    def figures(self, ctx: Any) -> Answer:
        """The tables of the latest evaluation of the run; ``evaluation`` is None where there is none."""
        record = _latest(ctx.dataset, "evaluate_correspondences", self.record(ctx)["key"])
        if record is None:
            return {"evaluation": None}
        kept = {name: record[name] for name in ("key", "details", "counts", "notices")}
        return {"evaluation": {**kept, "time": record["timestamp"].isoformat(timespec="minutes")}}

    @event
    def decide(self, ctx: Any) -> Answer:
        """Says of ``pair_id`` that its matches are right (``action`` is ``"ok"``) or not (``"swap"``), or clears it."""
        record = self.record(ctx)
        _tags().decide(ctx.dataset, [requested_pair(ctx)], str(ctx.params.get("action")))
        return self._opened(ctx, record) | {"progress": self.progress(ctx.dataset)}

    @event
    def undo(self, ctx: Any) -> Answer:
        """Takes the latest decision back; ``pair_id`` of the answer is the pair that it was about."""
        return {"pair_id": _tags().undo(ctx.dataset)[0], "progress": self.progress(ctx.dataset)}

    @event
    def exchange(self, ctx: Any) -> Answer:
        """Exchanges left and right in the annotation of the image ``side``: of two ``partners``, or of all couples."""
        from ..keypoint_exchange import exchange_labels

        record, pair_id = self.record(ctx), requested_pair(ctx)
        config = record["config"]
        if config["keypoints"] is None:
            raise ConfigError(f"the run {record['key']!r} found matches without keypoints; there are no labels to fix")
        made = exchange_labels(
            ctx.dataset,
            pair_id,
            str(ctx.params.get("side")),
            ctx.params.get("partners"),
            keypoints=config["keypoints"],
            couples=config.get("couples"),
        )
        return self._opened(ctx, record) | {"exchanged": _told(made)}

    @event
    def undo_exchange(self, ctx: Any) -> Answer:
        """Takes the latest exchange back, and shows the pair that it was about."""
        from ..keypoint_exchange import undo_exchange

        record, made = self.record(ctx), undo_exchange(ctx.dataset)
        return self._opened(ctx, record, made.pair_id) | {"undone": _told(made)}

    @event
    def show_view(self, ctx: Any) -> Answer:
        """The grid shows a saved view of ``find_symmetry_errors``, or with no ``name`` the whole dataset."""
        name = ctx.params.get("name")
        if not name:
            ctx.ops.clear_view()
        elif name not in _views(ctx.dataset, self.record(ctx)["key"]):
            raise ConfigError(f"there is no saved view {name!r} any more; find the symmetry errors again")
        else:
            ctx.ops.set_view(name=name)
        return {}

    def extras(self, ctx: Any) -> Answer:
        """In ``current``, the pair of the sample that is open in the modal."""
        return {"current": _current(ctx)}

    def describe(self, dataset: fo.Dataset, record: Mapping[str, Any]) -> Answer:
        """What the head of the panel says of a run, and the ``form`` of another one like it."""
        key, config = record["key"], record["config"]
        risk = _latest(dataset, "find_symmetry_errors", key)
        return {
            "key": key,
            "model": config["features"].get("backbone"),
            "keypoints": config["keypoints"],
            "threshold": f"{config['alpha']:g} of the {'image' if config['foreground'] == 'none' else 'box'}",
            "views": _views(dataset, key),
            "ranked": risk is not None,
            # Of pairs that were matched anew since, risks are of what was there before.
            "outdated": risk is not None and risk["timestamp"] < record["timestamp"],
            "form": _form(record),
        }

    def start(self, ctx: Any) -> Answer:
        if ctx.dataset is None or not is_pair_dataset(ctx.dataset):
            return super().start(ctx)
        return {
            "operator": "compute_correspondences",
            "label": "Compute correspondences",
            "reason": "The keypoints of these pairs have not been looked for yet.",
        }

    def progress(self, pairs: fo.Dataset) -> Answer:
        return dict(_tags().progress(pairs))

    def _page(self, ctx: Any, record: Mapping[str, Any]) -> Answer:
        from .correspondence_pages import page_of_correspondences

        options = {name: ctx.params.get(name) for name in _FILTERS}
        fresh = bool(ctx.params.get("fresh"))
        page = page_of_correspondences(ctx.dataset, record, _tags().verdicts(ctx.dataset), **options, fresh=fresh)
        return {"progress": self.progress(ctx.dataset), "page": asdict(page)}

    def _opened(self, ctx: Any, record: Mapping[str, Any], pair_id: str | None = None) -> Answer:
        from ..keypoint_exchange import exchanges
        from .correspondence_pages import opened_correspondences

        pair_id = requested_pair(ctx) if pair_id is None else pair_id
        verdicts = _tags().verdicts(ctx.dataset.match({"pair_id": pair_id}))
        made = exchanges(ctx.dataset)
        undoable = {"count": len(made), "last": _told(made[-1]) if made else None}
        return {**opened_correspondences(ctx.dataset, record, pair_id, verdicts), "exchanges": undoable}


def _tags() -> Any:
    from ..pair_tags import PairTags

    return PairTags("pairs:correspondences", TAGS)


def _told(made: Any) -> Answer:
    """An exchange for the view."""
    names = [list(couple) for couple in made.couples]
    return {"pair_id": made.pair_id, "side": made.side, "couples": names, "pairs": made.pairs}


def _latest(dataset: fo.Dataset, method: str, key: str) -> Answer | None:
    """The latest complete run of a method on the results of a key."""
    from ..runs import list_records

    records = [one for one in list_records(dataset, method=method) if one["status"] == "completed"]
    return next((one for one in reversed(records) if one["config"].get("run") == key), None)


def _views(dataset: fo.Dataset, key: str) -> list[str]:
    """The saved views of the latest search for symmetry errors that are still there."""
    record = _latest(dataset, "find_symmetry_errors", key)
    there = set(dataset.list_saved_views())
    return [] if record is None else [name for name in record["details"].get("views", ()) if name in there]


def _current(ctx: Any) -> str | None:
    """The pair of the sample that is open in the modal."""
    if not ctx.current_sample or ctx.dataset is None or not is_pair_dataset(ctx.dataset):
        return None
    found = flat_pairs(ctx.dataset).select([ctx.current_sample]).values("pair_id")
    return found[0] if found else None


def _form(record: Mapping[str, Any]) -> Answer:
    """The form of a run with the settings of this one: what has changed since is matched again, and nothing else."""
    config, features = record["config"], record["config"]["features"]
    names = ("foreground", "alignment", "visibility", "label_free", "count", "alpha", "write_back")
    chosen = {name: config.get(name) for name in names}
    chosen |= {"keypoints": config["keypoints"] or "auto", "model": features.get("backbone")}
    # The form takes them as text.
    chosen["couples"] = "; ".join(" = ".join(couple) for couple in config.get("couples") or ()) or None
    advanced = {name: config.get(name) for name in ("decoding", "diffusion")}
    advanced |= {name: features.get(name) for name in ("size", "precision")}
    return {"key": record["key"], **_given(chosen), "advanced": _given(advanced)}


def _given(values: Mapping[str, Any]) -> Answer:
    return {name: value for name, value in values.items() if value is not None}
