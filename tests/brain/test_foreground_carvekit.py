import importlib
import pickle
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.errors import ConfigError, ModelError
from fiftyone_selfsame.brain.foreground.carvekit import CarveKit, CarveKitConfig
from fiftyone_selfsame.brain.foreground.carvekit_weights import find_weights, load_weights, undisturbed
from fiftyone_selfsame.fixtures.carvekit_folders import make_carvekit_folder
from PIL import Image

# CarveKit's networks at full depth, on small pictures.
SMALL = {"seg_mask_size": 64, "matting_mask_size": 64, "trimap_dilation": 3, "trimap_erosion_iters": 1}

# Per segmenter: module and class in CarveKit, and the function that its module calls for the path of the weights.
ORIGINALS = {
    "tracer_b7": ("tracer_b7", "TracerUniversalB7", "tracer_b7_pretrained"),
    "u2net": ("u2net", "U2NET", "u2net_full_pretrained"),
    "basnet": ("basnet", "BASNET", "basnet_pretrained"),
    "deeplab": ("deeplab_v3", "DeepLabV3", "deeplab_pretrained"),
}


@pytest.fixture(scope="module")
def weights():
    """A folder of seeded weights; 300 MB, so it is deleted at once and not kept as pytest's folders are."""
    with tempfile.TemporaryDirectory(prefix="selfsame-carvekit-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def u2net(weights):
    make_carvekit_folder(weights, "u2net")
    return CarveKit(CarveKitConfig(segmenter="u2net", **SMALL), device="cpu", model_dir=weights)


def blocks(height, width, seed=0):
    """``(H, W, 3)`` uint8: blocks of random colours."""
    cells = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.kron(cells, np.ones((8, 8, 1), np.uint8))[:height, :width].copy()


def alpha_of_carvekit(segmenter, weights, images, monkeypatch):
    """Alpha of the RGBA pictures that CarveKit's own interface returns, given the same weight files."""
    with undisturbed():
        from carvekit.api.interface import Interface
        from carvekit.ml.wrap import fba_matting
        from carvekit.pipelines.postprocessing import MattingMethod
        from carvekit.trimap.generator import TrimapGenerator

        module, name, locate = ORIGINALS[segmenter]
        wrapper = importlib.import_module(f"carvekit.ml.wrap.{module}")
        monkeypatch.setattr(wrapper, locate, lambda: weights / f"{segmenter}.pth")
        monkeypatch.setattr(fba_matting, "fba_pretrained", lambda: weights / "fba_matting.pth")
        network = getattr(wrapper, name)(input_image_size=64, batch_size=5)
        matting = fba_matting.FBAMatting(input_tensor_size=64, batch_size=1)
    interface = Interface(network, post_pipe=MattingMethod(matting, TrimapGenerator(231, 3, 1)))
    return [np.asarray(picture)[..., 3] for picture in interface([Image.fromarray(image) for image in images])]


@pytest.mark.parametrize("segmenter", ORIGINALS)
def test_alpha_is_that_of_carvekit_itself(segmenter, weights, monkeypatch):
    make_carvekit_folder(weights, segmenter)
    images = [blocks(56, 72), blocks(48, 40, seed=1)]
    method = CarveKit(CarveKitConfig(segmenter=segmenter, **SMALL), device="cpu", model_dir=weights)

    masks = method.masks(images)

    for mask, expected in zip(masks, alpha_of_carvekit(segmenter, weights, images, monkeypatch), strict=True):
        assert mask.dtype == np.float32
        assert 0 < expected.mean() < 255
        # CarveKit's own compositing truncates, which may cost the last of 255 levels.
        np.testing.assert_allclose(mask * 255, expected, atol=1.01)


def test_a_picture_gets_the_same_mask_alone_and_in_a_batch(u2net):
    images = [blocks(56, 72), blocks(40, 50, seed=1), blocks(33, 90, seed=2)]

    together = u2net.masks(images)

    for image, mask in zip(images, together, strict=True):
        np.testing.assert_allclose(u2net.masks([image])[0], mask, atol=2 / 255)


@pytest.mark.parametrize("shape", [(1, 1), (10, 300), (33, 20)])
def test_pictures_too_small_for_carvekit_get_masks_of_their_own_size(u2net, shape):
    [mask] = u2net.masks([blocks(*shape)])

    assert mask.shape == shape
    assert ((mask >= 0) & (mask <= 1)).all()


def test_a_black_picture_is_not_background_because_it_is_black(u2net):
    [mask] = u2net.masks([np.zeros((40, 40, 3), np.uint8)])

    assert mask.mean() > 0.1


def test_no_picture_gives_no_mask(u2net):
    assert u2net.masks([]) == []


def test_the_defaults_are_the_published_settings():
    config = CarveKitConfig()

    assert config == CarveKitConfig(
        segmenter="tracer_b7",
        seg_mask_size=None,
        matting_mask_size=2048,
        batch_size_seg=5,
        batch_size_matting=1,
        trimap_prob_threshold=231,
        trimap_dilation=30,
        trimap_erosion_iters=5,
        fp16=False,
    )


def test_without_a_size_each_network_gets_the_one_it_was_made_for(weights):
    make_carvekit_folder(weights, "tracer_b7")
    make_carvekit_folder(weights, "u2net")

    tracer = CarveKit(CarveKitConfig(), device="cpu", model_dir=weights)
    u2net = CarveKit(CarveKitConfig(segmenter="u2net"), device="cpu", model_dir=weights)

    assert tracer._segment.input_image_size == (640, 640)
    assert u2net._segment.input_image_size == (320, 320)
    assert tracer._matting.input_image_size == (2048, 2048)
    assert (tracer._segment.batch_size, tracer._matting.batch_size) == (5, 1)
    assert (tracer.name, u2net.name) == ("carvekit", "carvekit-u2net")


def test_the_hash_tells_settings_and_weights_apart(weights, u2net, monkeypatch):
    same = CarveKit(u2net.config, device="cpu", model_dir=weights)
    other = CarveKit(CarveKitConfig(segmenter="u2net", **SMALL | {"trimap_dilation": 4}), model_dir=weights)
    monkeypatch.setattr("fiftyone_selfsame.brain.foreground.carvekit.weights_digest", lambda path: "other weights")
    retrained = CarveKit(u2net.config, device="cpu", model_dir=weights)

    assert same.weights_hash == u2net.weights_hash
    assert len({u2net.weights_hash, other.weights_hash, retrained.weights_hash}) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segmenter": "sam"}, "segmenter='sam'"),
        ({"batch_size_seg": 0}, "batch_size_seg=0"),
        ({"seg_mask_size": -1}, "seg_mask_size=-1"),
        ({"trimap_dilation": -2}, "trimap_dilation=-2"),
        ({"trimap_prob_threshold": 255}, "trimap_prob_threshold=255"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message):
        CarveKitConfig(**options)


def test_half_precision_is_refused_where_carvekit_would_ignore_it():
    with pytest.raises(ConfigError, match="fp16=True needs a CUDA device"):
        CarveKit(CarveKitConfig(fp16=True), device="cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("segmenter", ["tracer_b7", "u2net"])
def test_half_precision_on_a_gpu_agrees_with_single_precision_on_the_cpu(segmenter, weights):
    make_carvekit_folder(weights, segmenter)
    images = [blocks(56, 72)]
    [slow] = CarveKit(CarveKitConfig(segmenter=segmenter, **SMALL), device="cpu", model_dir=weights).masks(images)

    [fast] = CarveKit(CarveKitConfig(segmenter=segmenter, fp16=True, **SMALL), device="cuda", model_dir=weights).masks(
        images
    )

    assert np.abs(fast - slow).mean() < 0.05


# Finding weights


def test_missing_weights_in_a_given_folder_are_named_with_their_source(tmp_path):
    with pytest.raises(ModelError, match=r"tracer_b7\.pth is not in .*huggingface\.co/Carve/tracer_b7") as error:
        CarveKit(device="cpu", model_dir=tmp_path)

    assert str(tmp_path) in str(error.value)
    assert "one_pass" in str(error.value)


def test_weights_are_found_directly_or_in_the_sub_folder_that_carvekit_makes(tmp_path):
    direct, nested = tmp_path / "u2net.pth", tmp_path / "tracer_b7" / "tracer_b7.pth"
    nested.parent.mkdir()
    for path in (direct, nested):
        path.write_bytes(b"x")

    assert find_weights("u2net.pth", tmp_path) == direct
    assert find_weights("tracer_b7.pth", tmp_path) == nested


def test_the_models_folder_of_the_environment_is_searched(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFSAME_MODELS_DIR", str(tmp_path))
    path = tmp_path / "carvekit" / "u2net.pth"
    path.parent.mkdir()
    path.write_bytes(b"x")

    assert find_weights("u2net.pth") == path


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """CarveKit's downloader with an empty cache and no network."""
    from carvekit.utils.download_models import downloader

    def fail(file):
        raise ConnectionError("Name or service not known")

    monkeypatch.delenv("SELFSAME_MODELS_DIR", raising=False)
    monkeypatch.setattr(downloader, "cache_dir", tmp_path)
    monkeypatch.setattr(downloader, "download_model", fail)
    return downloader


def test_offline_nothing_is_downloaded(empty_cache, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    with pytest.raises(ModelError, match=r"HF_HUB_OFFLINE forbids .* save it as u2net\.pth in \$SELFSAME_MODELS_DIR"):
        find_weights("u2net.pth")


def test_a_failed_download_says_what_to_put_where(empty_cache, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")

    with pytest.raises(ModelError, match=r"could not be downloaded .* save it as basnet\.pth in"):
        find_weights("basnet.pth")


def test_a_download_with_a_wrong_checksum_is_not_used(empty_cache, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_HUB_OFFLINE")

    def arrive_damaged(file):
        path = tmp_path / "fba" / file
        path.parent.mkdir()
        path.write_bytes(b"half of it")

    monkeypatch.setattr(empty_cache, "download_model", arrive_damaged)

    with pytest.raises(ModelError, match=r"fba_matting\.pth arrived damaged"):
        find_weights("fba_matting.pth")


# Loading weights


class _Bomb:
    """Pickles into a call that would write a file when loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_a_weight_file_is_not_run(tmp_path):
    fuse = tmp_path / "exploded"
    torch.save({"weight": torch.zeros(2, 2), "bomb": _Bomb(fuse)}, tmp_path / "zip.pth")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(_Bomb(fuse)))

    for name in ("zip.pth", "pickle.pth"):
        with pytest.raises(ModelError, match=f"{name}: holds something else than weights"):
            load_weights(torch.nn.Linear(2, 2), tmp_path / name)

    assert not fuse.exists()


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 and no more"])
def test_a_damaged_weight_file_is_named(tmp_path, content):
    path = tmp_path / "u2net.pth"
    path.write_bytes(content)

    with pytest.raises(ModelError, match=r"u2net\.pth: .*damaged.* download it again"):
        load_weights(torch.nn.Linear(2, 2), path)


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("state", [{"other.weight": torch.zeros(2, 2)}, {"weight": torch.zeros(3, 3)}, [1, 2], {}])
def test_weights_of_another_network_are_refused(tmp_path, state, lenient):
    torch.save(state, tmp_path / "weights.pth")

    with pytest.raises(ModelError, match=r"weights\.pth: weights of another network"):
        load_weights(torch.nn.Linear(2, 2), tmp_path / "weights.pth", lenient=lenient)


def test_more_weights_than_the_network_has_are_taken_only_where_carvekit_takes_them(tmp_path):
    state = {**torch.nn.Linear(2, 2).state_dict(), "edge_detector": torch.zeros(1)}
    torch.save(state, tmp_path / "weights.pth")
    network = torch.nn.Linear(2, 2)

    load_weights(network, tmp_path / "weights.pth", lenient=True)

    assert torch.equal(network.weight, state["weight"])
    with pytest.raises(ModelError, match="1 unknown, such as 'edge_detector'"):
        load_weights(network, tmp_path / "weights.pth")


# CarveKit's manners


def test_its_import_leaves_random_numbers_and_cudnn_alone(monkeypatch):
    import carvekit.ml

    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), torch.rand(1)
    random.seed(1)
    torch.manual_seed(1)

    with undisturbed():
        importlib.reload(carvekit.ml)
        torch.backends.cudnn.deterministic = True

    assert (random.random(), torch.rand(1)) == expected
    assert torch.backends.cudnn.deterministic is False


def test_its_absence_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "carvekit", None)

    with pytest.raises(ModelError, match="pip install --no-deps carvekit"):
        CarveKit(device="cpu")
