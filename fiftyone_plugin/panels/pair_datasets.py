"""What panels on pairs share: from a dataset of images to the datasets of pairs that were made of it, and back."""

from collections.abc import Mapping
from typing import Any, ClassVar

import fiftyone as fo

from ...brain.errors import ConfigError
from ..pairs import INFO, check_pairs, derived_pairs, is_pair_dataset
from .base import Answer, CurationPanel, event


class PairsPanel(CurationPanel):
    """A panel on the runs of datasets of pairs; subclasses also set ``workspace`` and say what :meth:`progress` is.

    Attributes:
        workspace: name of the workspace of a dataset of pairs that has this panel beside the grid.
    """

    workspace: ClassVar[str]

    @event
    def overview(self, ctx: Any) -> Answer:
        """All that the panel shows at first.

        Of a dataset of pairs: the runs, one of them, how far its review is, a page of its pairs, and :meth:`extras`. Of
        any other dataset: the datasets of pairs that were made of it.
        """
        if (home := self.home(ctx)) is not None:
            return home
        runs, record = self.select(ctx)
        runs |= {"origins": origins(ctx.dataset), **self.extras(ctx)}
        if record is None:
            return runs
        return {**runs, "run": self.describe(ctx.dataset, record), **self._page(ctx, record)}

    @event
    def list_pairs(self, ctx: Any) -> Answer:
        """A page of the list."""
        return self._page(ctx, self.record(ctx))

    @event
    def open_pair(self, ctx: Any) -> Answer:
        """One pair; with ``follow`` the App's grid shows it as well."""
        answer = self._opened(ctx, self.record(ctx))
        self.follow(ctx, answer["pair"]["pair_id"])
        return answer

    def target(self, ctx: Any) -> Answer:
        """Of pairs all; of single images what the grid shows, of which pairs are to be made."""
        return super().target(ctx) if ctx.dataset is not None and is_pair_dataset(ctx.dataset) else {}

    @event
    def show(self, ctx: Any) -> Answer:
        """A pair opens (``group`` is the id of its group), or the grid shows all of the dataset again."""
        if ctx.params.get("group"):
            ctx.ops.open_sample(id=ctx.params.get("sample"), group_id=str(ctx.params["group"]))
        else:
            ctx.ops.clear_view()
        return {}

    @event
    def open_dataset(self, ctx: Any) -> Answer:
        """Lets the view turn to a dataset of pairs, or the App to one that the pairs were made of.

        The App closes all panels with a dataset. One of pairs therefore has a workspace with this panel, whose slug is
        in the answer: the view opens the dataset with it.
        """
        name = str(ctx.params.get("name"))
        known = origins(ctx.dataset) if is_pair_dataset(ctx.dataset) else derived_pairs(ctx.dataset)
        if name not in known:
            raise ConfigError(f"there is no dataset {name!r} that belongs to this one any more")
        if is_pair_dataset(ctx.dataset):
            ctx.ops.open_dataset(name)
            return {}
        return {"name": name, "workspace": self._workspace(name)}

    def extras(self, ctx: Any) -> Answer:
        """What else the overview of a dataset of pairs has."""
        return {}

    def describe(self, dataset: fo.Dataset, record: Mapping[str, Any]) -> Answer:
        """What the head of the panel says of a run."""
        raise NotImplementedError

    def _page(self, ctx: Any, record: Mapping[str, Any]) -> Answer:
        """A page of the pairs of a run, and how far its review is."""
        raise NotImplementedError

    def _opened(self, ctx: Any, record: Mapping[str, Any]) -> Answer:
        """The pair that a request names; ``pair`` is its row in the list."""
        raise NotImplementedError

    def progress(self, pairs: fo.Dataset) -> Answer:
        """How far the review of a dataset of pairs is; ``pairs`` is how many there are."""
        raise NotImplementedError

    def home(self, ctx: Any) -> Answer | None:
        """What is shown of a dataset of images: the datasets of pairs that were made of it; None where it is one."""
        if ctx.dataset is not None and is_pair_dataset(ctx.dataset):
            return None
        derived = [] if ctx.dataset is None else [self._summary(name) for name in derived_pairs(ctx.dataset)]
        return {"runs": [], "derived": derived, "start": self.start(ctx)}

    def follow(self, ctx: Any, pair_id: str) -> None:
        """The grid shows a pair, if the view asks for it."""
        if ctx.params.get("follow"):
            ctx.ops.set_view(view=ctx.dataset.match({"pair_id": pair_id}))

    def start(self, ctx: Any) -> Answer:
        return {
            "operator": "create_pairs",
            "label": "Create pairs",
            "reason": "Pairs of images are compared in datasets of their own; none has been made of this one yet.",
        }

    def _summary(self, name: str) -> Answer:
        """What the list of pair datasets says of one."""
        from ..result_keys import finished_keys

        pairs = fo.load_dataset(name)
        made_by = pairs.info[INFO]["made_by"].get("method")
        runs = [key for method in self.methods for key in finished_keys(pairs, method)]
        return {"name": name, "made_by": made_by, "runs": runs, **self.progress(pairs)}

    def _workspace(self, name: str) -> str:
        """The slug of the workspace of a pair dataset that has this panel beside the grid."""
        import fiftyone.core.utils as fou

        pairs = fo.load_dataset(name)
        if not pairs.has_workspace(self.workspace):
            panels = [fo.Panel(type="Samples", pinned=True), fo.Panel(type=self.name)]
            sides = [fo.Space(children=[one], active_child=one.component_id) for one in panels]
            pairs.save_workspace(self.workspace, fo.Space(children=sides, orientation="horizontal"))
        return str(fou.to_slug(self.workspace))


def requested_pair(ctx: Any) -> str:
    """The ``pair_id`` of a request.

    Raises:
        ConfigError: it is none.
    """
    pair_id = ctx.params.get("pair_id")
    if not isinstance(pair_id, str):
        raise ConfigError(f"pair_id={pair_id!r} must be the pair_id of a pair")
    return pair_id


def origins(pairs: fo.Dataset) -> list[str]:
    """Names of the datasets that the pairs were made of, those that are still there."""
    from ..pairs import original_dataset

    info, names = check_pairs(pairs), []
    for target in (False, True):
        try:
            names.append(original_dataset(info, target=target).name)
        except ConfigError:
            continue
    return list(dict.fromkeys(names))
