"""The plugin as FiftyOne loads it, and small datasets to run its operators on."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = "@selfsame/curation"


@pytest.fixture(scope="session", autouse=True)
def installed_plugin():
    """The repository in FiftyOne's plugins folder, found through a link."""
    folder = Path(os.environ["FIFTYONE_PLUGINS_DIR"])
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "selfsame"
    if not link.exists():
        link.symlink_to(ROOT, target_is_directory=True)
    return link


@pytest.fixture
def operator():
    """``operator("compute_ffa")``: the operator as FiftyOne's registry gives it."""
    import fiftyone.operators as foo

    return lambda name: foo.get_operator(f"{PLUGIN}/{name}")


@pytest.fixture
def request_of():
    """``request_of(dataset, params)``: an execution context as the App's server makes one from a request."""
    from fiftyone.operators.executor import ExecutionContext, Executor

    def make(dataset, params=None, *, view=None, from_app=True, **request):
        parameters = {"dataset_name": dataset.name if dataset is not None else None, "params": dict(params or {})}
        if view is not None:
            parameters["view"] = view._serialize()
        if from_app:
            parameters["operator_uri"] = PLUGIN
        return ExecutionContext(parameters | request, executor=Executor())

    return make


@pytest.fixture
def pictures(tmp_path):
    """Four colourful PNG pictures: two of them the same, one a slightly darker copy, one different."""
    rng = np.random.default_rng(3)
    first = rng.integers(40, 255, (48, 64, 3), np.uint8)
    other = np.kron(rng.integers(0, 255, (6, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    paths = [tmp_path / f"picture_{index}.png" for index in range(4)]
    for path, pixels in zip(paths, (first, first, (first * 0.97).astype(np.uint8), other), strict=True):
        Image.fromarray(pixels).save(path)
    return paths


@pytest.fixture
def dataset(fo_dataset, pictures):
    """A dataset of the pictures."""
    return fo_dataset(pictures)


@pytest.fixture
def vector_dataset(dataset):
    """The same with vectors in ``ffa``: two equal, one near them, one far."""
    import fiftyone as fo

    dataset.add_sample_field("ffa", fo.VectorField)
    vectors = np.array([[1, 0, 0], [1, 0, 0], [0.98, 0.2, 0], [0, 0, 1]], np.float32)
    dataset.set_values("ffa", list(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)))
    return dataset


@pytest.fixture
def form():
    """``form(operator, ctx)``: the form that the App shows, as JSON by property."""
    return lambda operator, ctx: operator.resolve_type(ctx, "inputs").to_json()["type"]["properties"]


@pytest.fixture
def notices():
    """``notices(form)``: all sentences that a form shows besides its fields."""

    def join(properties):
        views = [prop["view"] for prop in properties.values()]
        return " ".join(view["label"] for view in views if view["name"] in ("Notice", "Error"))

    return join


@pytest.fixture
def run_in_app():
    """``run_in_app(operator, ctx)``: the requests that the App gets, and the result that it shows in the end."""

    def run(operator, ctx):
        messages = [message.to_json() for message in operator.execute(ctx)]
        requests = [message["body"] for message in messages if message["cls"] == "InvocationRequest"]
        assert len(requests) == len(messages)
        if not requests[-1]["operator_uri"].endswith("show_output"):
            return requests, None
        shown = requests.pop()["params"]
        return requests, shown["results"] | {"form": shown["outputs"]["type"]["properties"]}

    return run


@pytest.fixture
def mirrored(fo_dataset, tmp_path, monkeypatch):
    """A picture with three keypoints, and the pair of it and its mirror image; nothing is matched yet."""
    import fiftyone as fo
    from fiftyone_selfsame.fiftyone_plugin.create_pairs import create_pairs

    monkeypatch.setenv("SELFSAME_HOME", str(tmp_path / "home"))
    coarse = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC))
    paths = [tmp_path / "own.png", tmp_path / "mirrored.png"]
    for path, pixels in zip(paths, (picture, picture[:, ::-1]), strict=True):
        Image.fromarray(np.ascontiguousarray(pixels)).save(path)
    dataset = fo_dataset(paths)
    dataset.default_skeleton = fo.KeypointSkeleton(labels=["left eye", "right eye", "nose"], edges=[])
    places = [[[0.2, 0.3], [0.7, 0.3], [0.4, 0.8]], [[0.3, 0.3], [0.8, 0.3], [0.6, 0.8]]]
    labels = [fo.Keypoints(keypoints=[fo.Keypoint(label="cat", points=points)]) for points in places]
    dataset.set_values("points", labels)
    dataset.set_values("species", ["tabby", "tabby"])
    dataset.set_values("viewpoint", [0, 4])
    pairs = create_pairs(dataset, pairs=[tuple(dataset.values("id"))], fields=["points", "species", "viewpoint"])
    yield dataset, pairs
    pairs.delete()
