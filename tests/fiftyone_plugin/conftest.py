"""Fixtures for tests that run real jobs: a tiny encoder, and pictures of one bright object each."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """Folder of a tiny DINOv2 with seeded weights: 32 channels, patch 14, canvas 56."""
    from fiftyone_selfsame.fixtures.model_folders import make_model_folder

    return str(make_model_folder("dinov2", tmp_path_factory.mktemp("tiny-dinov2")))


@pytest.fixture
def photos(tmp_path):
    """A factory of JPEG files: ``photos(5)`` gives five paths, each picture with an object of its own colour."""

    def make(n, size=(80, 60), folder=tmp_path):
        paths = []
        for number in range(n):
            generator = np.random.default_rng(number)
            picture = generator.integers(0, 60, (size[1], size[0], 3), dtype=np.uint8)
            picture[15:45, 20:60] = generator.integers(100, 256, 3, dtype=np.uint8)
            paths.append(folder / f"photo{number:03d}.jpg")
            Image.fromarray(picture).save(paths[-1], quality=95)
        return paths

    return make


@pytest.fixture
def vector_dataset(fo_dataset, tmp_path):
    """A factory of datasets with one vector per image: ``vector_dataset(vectors)``; sample n shows picture n.

    All pictures differ; ``sizes`` gives their sides in pixels, and None as a vector leaves the field empty.
    """
    import fiftyone as fo

    def make(vectors, sizes=None, field="ffa"):
        paths = []
        for number in range(len(vectors)):
            side = 16 if sizes is None else sizes[number]
            small = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            paths.append(tmp_path / f"image{number:03d}.png")
            Image.fromarray(small).resize((side, side), Image.Resampling.NEAREST).save(paths[-1])
        dataset = fo_dataset(paths)
        dataset.add_sample_field(field, fo.VectorField)
        values = [None if vector is None else np.asarray(vector, np.float32) for vector in vectors]
        dataset.set_values(field, values)
        return dataset

    return make


@pytest.fixture
def ffa(tiny_model):
    """compute_ffa with the tiny model, without a foreground and without a progress bar."""

    from fiftyone_selfsame.fiftyone_plugin.compute import compute_ffa

    def run(samples, field="ffa", **options):
        defaults = {"model": tiny_model, "foreground": "none", "device": "cpu", "progress": False}
        return compute_ffa(samples, field, **{**defaults, **options})

    return run


@pytest.fixture
def block_pictures(tmp_path):
    """A factory of PNG files: picture n has the striped block of object n % 3 on its own plain ground."""

    def make(n, folder=tmp_path):
        folder.mkdir(exist_ok=True)
        paths = []
        for number in range(n):
            picture = np.full((120, 160, 3), 60 + 20 * number % 190, np.uint8)
            x, y, width, height = block_box(number)
            block = np.empty((height, width, 3), np.uint8)
            block[:] = ((200, 30, 30), (20, 160, 40), (30, 60, 220))[number % 3]
            block[:, :: 3 + number % 3] = 240
            picture[y : y + height, x : x + width] = block
            paths.append(folder / f"blocks{number:03d}.png")
            Image.fromarray(picture).save(paths[-1])
        return paths

    return make


def block_box(number):
    """Where the block of a picture is, in pixels."""
    return 20 + 12 * (number % 5), 16 + 8 * (number % 4), 64, 64


@pytest.fixture
def block_dataset(fo_dataset, block_pictures):
    """A factory of datasets of those pictures, with ``object`` and the block's box in ``truth``."""
    import fiftyone as fo

    def make(n):
        dataset = fo_dataset(block_pictures(n))
        dataset.set_values("object", [str(number % 3) for number in range(n)])
        boxes = [np.array(block_box(number)) / (160, 120, 160, 120) for number in range(n)]
        labels = [fo.Detection(label="block", bounding_box=box.tolist()) for box in boxes]
        dataset.set_values("truth", [fo.Detections(detections=[label]) for label in labels])
        return dataset

    return make


@pytest.fixture
def regions():
    """compute_claid_regions with the embedded model on small canvases, without a progress bar."""
    from fiftyone_selfsame.fiftyone_plugin.regions import compute_claid_regions

    def run(samples, field="regions", **options):
        defaults = {
            "model": "embedded-hybrid",
            "device": "cpu",
            "short_side": 96,
            "long_side": 192,
            "min_patches": 4,
            "progress": False,
        }
        return compute_claid_regions(samples, field, **{**defaults, **options})

    return run


@pytest.fixture
def ask():
    """``ask(panel, event, dataset, **params)``: the answer to an event as the App's server gives it; what the App is
    made to do is in ``ask.requests``, by name of the operation."""
    from fiftyone.operators.executor import ExecutionContext, Executor

    def call(panel, event, dataset, **params):
        executor = Executor()
        request = {"dataset_name": dataset.name if dataset is not None else None, "operator_uri": panel.uri}
        context = ExecutionContext(request | {"params": {"panel_id": "p", **params}}, executor=executor)
        answer = getattr(panel, event)(context)
        call.requests = {item.operator_uri.split("/")[-1]: item.params for item in executor._requests}
        return answer

    return call


@pytest.fixture
def colour_matcher(monkeypatch):
    """The colour matcher in place of any other; a request for one without refinement counts in the same object."""
    from fiftyone_selfsame.fiftyone_plugin.match_setup import MatcherChoice
    from fiftyone_selfsame.fixtures.colour_matcher import ColourMatcher

    found = ColourMatcher()

    def load(choice):
        found.threshold = 0.8 if choice.threshold is None else choice.threshold
        return found

    monkeypatch.setattr(MatcherChoice, "load", load)
    return found


# Of a scene that has two sides: the mirror partner of each keypoint by its number.
SCENE_NAMES = ["left eye", "right eye", "left paw", "right paw", "nose"]
SCENE_PARTNERS = [1, 0, 3, 2, 4]


@pytest.fixture
def scene_pairs(fo_dataset, tmp_path):
    """``scene_pairs(size, points, shifts, mirrored, wrong)``: pictures of one scene, of a width and height, each of
    another part of it; those in ``mirrored`` are flipped, which exchanges sides, and in the annotation of ``wrong`` the
    eyes are exchanged. Gives their dataset, and that of all their pairs."""
    import fiftyone as fo
    from fiftyone_selfsame.fiftyone_plugin.create_pairs import create_pairs

    made = []

    def make(size, points, shifts, mirrored, wrong, category=lambda number: "cat"):
        width, height = size
        rng = np.random.default_rng(0)
        coarse = Image.fromarray(rng.integers(0, 255, (14, 14, 3), dtype=np.uint8))
        whole = np.asarray(coarse.resize((width + 64, height + 64), Image.Resampling.BICUBIC))
        paths, labels = [], []
        for number, (x, y) in enumerate(shifts):
            picture, places = whole[32 + y :, 32 + x :][:height, :width], points - (x, y)
            if number in mirrored:
                picture, places = picture[:, ::-1], (places * [-1, 1] + [width, 0])[SCENE_PARTNERS]
            if number == wrong:
                places = places[[1, 0, 2, 3, 4]]
            noisy = picture + rng.normal(0, 8, picture.shape)
            paths.append(tmp_path / f"view{number}.png")
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1])
            own = fo.Keypoint(label=category(number), points=(places / size).tolist())
            labels.append(fo.Keypoints(keypoints=[own]))
        dataset = fo_dataset(paths)
        dataset.default_skeleton = fo.KeypointSkeleton(labels=SCENE_NAMES, edges=[])
        dataset.set_values("points", labels)
        ids = dataset.values("id")
        chosen = [(one, other) for number, one in enumerate(ids) for other in ids[number + 1 :]]
        made.append(create_pairs(dataset, pairs=chosen, fields=["points"]))
        return dataset, made[-1]

    yield make
    for pairs in made:
        pairs.delete()
