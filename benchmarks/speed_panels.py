"""``speed panels``: how long the panels take to answer, asked over HTTP of the real App server as the browser asks.

A dataset with planted duplicate groups and clusters is written straight into a database of its own, with the pairs that
a search would have kept, and served by the App. Every action of a reviewer is then sent as the events that it causes,
one after the other, and timed from the request to the whole answer. A reviewer looks at the first group before going
on, so the benchmark waits as long after the first opening. Pictures are not part of it: the files are absent.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..brain.errors import SelfsameError
from ..fixtures.private_database import use_private_database
from .report import emit

DATASET, DUPLICATES, CLUSTERS = "selfsame-speed-panels", "dup", "objects"
THRESHOLD, KEPT_DOWN_TO = 0.9, 0.8

# Of all images so many are in groups, and a group has this many members on average.
GROUPED, MEAN_SIZE = 0.4, 4

_BATCH = 10_000
_START_SECONDS = 120
_LOOK_SECONDS = 5.0

# What the panels must keep to, in milliseconds.
LIMITS = {"open the panel": 1000, "open a group": 300, "move the threshold": 200}


def add_parser(subparsers: Any) -> None:
    """Adds ``panels`` to the parser of `benchmarks.speed`."""
    parser = subparsers.add_parser("panels", help="answers of the panels in the App", description=__doc__)
    parser.add_argument("--images", type=int, default=100_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--pairs", type=int, default=500_000, metavar="N", help="stored pairs (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=384, help="dimensions of a vector (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=9, help="times that each action is done (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="OUT", help="write the rows as JSON")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> None:
    """Builds the dataset, serves it, does every action and prints the table."""
    with tempfile.TemporaryDirectory(prefix="selfsame-bench-") as folder:
        os.environ.setdefault("FIFTYONE_PLUGINS_DIR", str(Path(folder, "plugins")))
        os.environ["FIFTYONE_DO_NOT_TRACK"] = "true"
        use_private_database()
        dataset = build(options.images, options.pairs, options.dim, options.seed)
        try:
            with served(dataset.name, Path(folder, "server.log")) as address:
                rows = measure(address, options.repeat, options.images)
        finally:
            dataset.delete()
    data = f"{options.images:,} images, {options.pairs:,} pairs, {GROUPED:.0%} of the images in groups of {MEAN_SIZE}"
    settings = {name: getattr(options, name) for name in ("images", "pairs", "dim", "repeat", "seed")}
    emit(rows, data=data, settings=settings, json_path=options.json, title=f"Answers of the panels; {data}")


def build(images: int, pairs: int, dim: int, seed: int) -> Any:
    """A dataset as a search for duplicates and a clustering leave it."""
    import fiftyone as fo
    from bson import ObjectId

    from ..fixtures.demo_job import MARK

    if fo.dataset_exists(DATASET):
        fo.delete_dataset(DATASET)
    dataset = fo.Dataset(DATASET, persistent=True)
    dataset.info[MARK] = "speed panels"
    dataset.add_sample_field("ffa", fo.VectorField)
    _declare(dataset)
    dataset.add_sample(fo.Sample(filepath="/absent/0.jpg"))
    collection, field = dataset._sample_collection, dataset.get_field("ffa")
    template = collection.find_one()
    collection.delete_many({})
    generator = np.random.default_rng(seed)
    label = planted_groups(images, generator)
    ids = [ObjectId() for _ in range(images)]
    vectors = generator.standard_normal((1000, dim), dtype=np.float32)
    for start in range(0, images, _BATCH):
        rows = range(start, min(start + _BATCH, images))
        values = _values(ids, label, rows, generator)
        collection.insert_many(
            [
                template
                | {"_id": ids[row], "filepath": f"/absent/{row}.jpg", "ffa": field.to_mongo(vectors[row % 1000])}
                | values[row]
                for row in rows
            ]
        )
    _register(dataset, ids, label, pairs, generator)
    return dataset


def planted_groups(images: int, generator: np.random.Generator) -> np.ndarray:
    """``(n,)`` int group of each image, 0 the largest and -1 for none; the members of a group lie anywhere."""
    count = max(1, int(GROUPED * images / MEAN_SIZE))
    size = np.sort(2 + generator.poisson(MEAN_SIZE - 2, count))[::-1]
    members = np.repeat(np.arange(count), size)[:images]
    label = np.full(images, -1)
    label[generator.permutation(images)[: len(members)]] = members
    return label


def planted_pairs(label: np.ndarray, count: int, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    """All pairs within groups above the threshold and others, up to ``count`` in all, below: ``i < j``, similarity."""
    order = np.argsort(label, kind="stable")
    order = order[label[order] >= 0]
    inner = []
    for shift in range(1, int(np.bincount(label[order]).max())):
        a, b = order[:-shift], order[shift:]
        same = label[a] == label[b]
        inner.append(np.stack([a[same], b[same]]))
    inside = np.concatenate(inner, axis=1)
    outside = generator.integers(0, len(label), (2, max(0, count - inside.shape[1])))
    outside = outside[:, outside[0] != outside[1]]
    both = np.sort(np.concatenate([inside, outside], axis=1), axis=0)
    span = np.where(np.arange(both.shape[1]) < inside.shape[1], 1 - THRESHOLD, KEPT_DOWN_TO - THRESHOLD)
    similarity = THRESHOLD + span * generator.uniform(0.01, 0.99, both.shape[1])
    unique = np.unique(both[0].astype(np.int64) * len(label) + both[1], return_index=True)[1]
    return both[0, unique].astype(np.int32), both[1, unique].astype(np.int32), similarity[unique].astype(np.float32)


def _declare(dataset: Any) -> None:
    from ..fiftyone_plugin.cluster_store import ClusterFields, declare_clusters
    from ..fiftyone_plugin.duplicate_store import declare_groups

    declare_groups(dataset, DUPLICATES, {"method": "find_duplicates"})
    declare_clusters(dataset, ClusterFields(CLUSTERS), {"method": "cluster_objects"})


def _values(ids: list[Any], label: np.ndarray, rows: range, generator: np.random.Generator) -> dict[int, dict]:
    """The fields of both runs, by row."""
    size = np.bincount(label[label >= 0])
    kinds = ("exact", "near", "same_object")
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        group = int(label[row])
        if group < 0:
            found[row] = {f"{DUPLICATES}_role": "unique", f"{DUPLICATES}_size": 1, f"{CLUSTERS}_size": 1}
            continue
        # The member whose number is the group's hash is the keeper: any rule does, as long as each group has one.
        similarity = float(generator.uniform(THRESHOLD, 1))
        found[row] = {
            f"{DUPLICATES}_group": group,
            f"{DUPLICATES}_size": int(size[group]),
            f"{DUPLICATES}_role": "duplicate",
            f"{DUPLICATES}_similarity": similarity,
            f"{DUPLICATES}_kind": kinds[group % 3],
            f"{DUPLICATES}_shot": row % 2,
            f"{DUPLICATES}_risk": (group * 0.618) % 1,
            f"{DUPLICATES}_quality": similarity,
            f"{CLUSTERS}_cluster": group,
            f"{CLUSTERS}_size": int(size[group]),
            f"{CLUSTERS}_confidence": similarity,
            f"{CLUSTERS}_outlier": 1 - similarity,
        }
    return found


def _register(dataset: Any, ids: list[Any], label: np.ndarray, pairs: int, generator: np.random.Generator) -> None:
    from pymongo import UpdateOne

    from ..brain.neighbors import Pairs
    from ..brain.thresholds import nearest_similarity_histogram
    from ..fiftyone_plugin.duplicate_settings import GroupingSettings
    from ..fiftyone_plugin.runs import RunSummary, register_run
    from ..fiftyone_plugin.stored_pairs import StoredPairs

    first = {int(group): row for row, group in reversed(list(enumerate(label))) if group >= 0}
    keeper = {"$set": {f"{DUPLICATES}_role": "keeper", f"{DUPLICATES}_similarity": 1.0}}
    dataset._sample_collection.bulk_write([UpdateOne({"_id": ids[row]}, keeper) for row in first.values()])
    i, j, similarity = planted_pairs(label, pairs, generator)
    stored, _ = StoredPairs.compact([str(one) for one in ids], Pairs(i, j, similarity, KEPT_DOWN_TO))
    nearest = np.full(len(ids), KEPT_DOWN_TO, np.float32)
    np.maximum.at(nearest, i, similarity)
    np.maximum.at(nearest, j, similarity)
    histogram = nearest_similarity_histogram(nearest)
    groups, members = len(first), int((label >= 0).sum())
    counts = {"total": len(ids), "done": len(ids), "skipped": 0, "failed": 0}
    largest = int(np.bincount(label[label >= 0]).max())
    found = RunSummary(DUPLICATES, "find_duplicates", counts | {"groups": groups, "duplicates": members - groups})
    found.counts["largest"] = largest
    found.details = {
        "threshold": THRESHOLD,
        "threshold_reason": "given",
        "pairs_kept_down_to": KEPT_DOWN_TO,
        "histogram": {"edges": histogram.edges.tolist(), "counts": histogram.counts.tolist()},
    }
    settings = GroupingSettings(threshold=THRESHOLD, max_diameter=2 * (1 - THRESHOLD))
    register_run(dataset, found, settings.config(), results=stored.to_results())
    clustered = RunSummary(CLUSTERS, "cluster_objects", counts | {"clusters": groups, "members": members})
    clustered.details = {"threshold": THRESHOLD}
    register_run(dataset, clustered, {"embeddings": "ffa", "patches_field": None})


@contextmanager
def served(name: str, log: Path) -> Iterator[str]:
    """The App on a dataset in a process of its own; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "fiftyone_selfsame.fixtures.demo", "--only-app", "--name", name]
    with log.open("w") as stream:
        server = subprocess.Popen(
            [*command, "--port", str(port)],
            env={**os.environ, "BROWSER": "true"},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait(f"http://localhost:{port}", server, log)
            yield f"http://localhost:{port}"
        finally:
            server.terminate()
            server.wait(30)


def _wait(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    raise SelfsameError(f"the App is not served on {address}:\n{log.read_text()[-2000:]}")


class PanelClient:
    """Sends the events of a panel to the App's server, as its page does."""

    def __init__(self, address: str, panel: str, key: str) -> None:
        self._address, self._panel, self._key = address, panel, key

    def __call__(self, event: str, **params: Any) -> dict[str, Any]:
        """The answer to an event.

        Raises:
            SelfsameError: it is an error.
        """
        request = {
            "current_sample": None,
            "dataset_name": DATASET,
            "delegation_target": None,
            "extended": {},
            "extended_selection": None,
            "filters": {},
            "operator_uri": f"@selfsame/curation/{self._panel}",
            "params": {"key": self._key, **params, "panel_id": "panel", "panel_state": {}, "__method__": event},
            "request_delegation": False,
            "selected": [],
            "selected_labels": [],
            "view": [],
            "view_name": None,
            "group_slice": None,
            "query_performance": True,
            "spaces": None,
            "workspace_name": None,
            "prompt_id": None,
            "active_fields": [],
        }
        body = json.dumps(request).encode()
        headers = {"Content-Type": "application/json"}
        called = urllib.request.Request(f"{self._address}/operators/execute", body, headers)
        with urllib.request.urlopen(called, timeout=120) as response:
            outcome = json.loads(response.read())
        answer = outcome.get("result") or {}
        if outcome.get("error") or answer.get("error"):
            raise SelfsameError(f"{self._panel}, event {event}: {outcome.get('error') or answer['error']}")
        return answer


def measure(address: str, repeat: int, images: int) -> list[dict[str, Any]]:
    """Does every action; a row for each with the time of the first, the median and the longest, in milliseconds."""
    rows = []
    for panel, key, actions in (
        ("selfsame_duplicates", DUPLICATES, _duplicate_actions),
        ("selfsame_objects", CLUSTERS, _object_actions),
    ):
        for name, act in actions(PanelClient(address, panel, key)).items():
            times = [_milliseconds(act, 0)]
            if name == "open the panel":
                time.sleep(_LOOK_SECONDS)
            times += [_milliseconds(act, turn) for turn in range(1, repeat)]
            rows.append(
                {
                    "method": panel.removeprefix("selfsame_"),
                    "group": name,
                    "scope": f"{images} images",
                    "first_ms": times[0],
                    "median_ms": statistics.median(times),
                    "longest_ms": max(times),
                    "limit_ms": LIMITS.get(name),
                }
            )
    return rows


def _milliseconds(act: Callable[[int], Any], turn: int) -> float:
    started = time.perf_counter()
    act(turn)
    return 1000 * (time.perf_counter() - started)


def _duplicate_actions(ask: PanelClient) -> dict[str, Callable[[int], Any]]:
    def open_panel(turn: int) -> None:
        ask("on_load")
        page = ask("overview", sort="size", fresh=True)["page"]
        ask("open_group", group=page["groups"][0]["group"])

    return {
        "open the panel": open_panel,
        "sort by risk, turn the page": lambda turn: ask("list_groups", sort="risk", page=turn),
        "only undecided near": lambda turn: ask("list_groups", sort="size", kind="near", undecided=True, page=turn),
        "open a group": lambda turn: ask("open_group", group=7 * turn + 3, follow=True),
        "move the threshold": lambda turn: ask("preview", threshold=0.82 + 0.015 * turn),
        "keep best": lambda turn: ask("decide", action="keep_best", groups=[7 * turn + 3]),
        "undo": lambda turn: ask("undo"),
        "list after a decision": lambda turn: (
            ask("decide", action="keep_all", groups=[7 * turn + 3]),
            ask("list_groups", sort="size", page=0),
        ),
    }


def _object_actions(ask: PanelClient) -> dict[str, Callable[[int], Any]]:
    def open_panel(turn: int) -> None:
        ask("on_load")
        page = ask("overview", sort="risk", fresh=True)["page"]
        ask("open_group", group=page["groups"][0]["group"])

    return {
        "open the panel": open_panel,
        "read the map": lambda turn: ask("map"),
        "open a group": lambda turn: ask("open_group", group=7 * turn + 3, follow=True),
        "confirm": lambda turn: ask("decide", action="confirm", groups=[7 * turn + 3]),
        "undo": lambda turn: ask("undo"),
    }
