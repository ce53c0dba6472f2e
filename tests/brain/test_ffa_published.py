"""FFA against a slow, literal version of the published pipeline, and against the traps that it holds.

Source of the steps: the public release of "Are These the Same Apple?" (arXiv 2311.00750) and CarveKit 4.1.2, described
here in our own words and code: one image at a time, plain loops, nothing shared with the implementation under test.
"""

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.backbones import load_backbone
from fiftyone_selfsame.brain.ffa import FFAConfig, FFAExtractor, FFAResult
from fiftyone_selfsame.fixtures.model_folders import make_model_folder
from PIL import Image

VARIANTS = ("Crop-Feat", "Crop-Img")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny DINOv2 in a model folder, once as our backbone and once as the plain network."""
    from transformers import Dinov2Model

    folder = make_model_folder("dinov2", tmp_path_factory.mktemp("dinov2"), image_size=336)
    return load_backbone(str(folder), device="cpu"), Dinov2Model.from_pretrained(folder).eval()


def carvekit_cut_out(image: np.ndarray, alpha: np.ndarray) -> Image.Image:
    """The RGBA image that CarveKit returns: mixed with grey (130, 130, 130) according to alpha."""
    pixels = np.zeros((*alpha.shape, 4), np.uint8)
    for y in range(alpha.shape[0]):
        for x in range(alpha.shape[1]):
            a = np.float32(alpha[y, x]) / 255
            for channel in range(3):
                pixels[y, x, channel] = int(a * image[y, x, channel] + (1 - a) * 130)
            pixels[y, x, 3] = alpha[y, x]
    return Image.fromarray(pixels)


def published_input(picture: Image.Image) -> np.ndarray:
    """Steps 2 and 3: pixels of alpha 0 become black; alpha is dropped, the picture squashed and normalised."""
    pixels = np.array(picture)
    if picture.mode == "RGBA":
        pixels[pixels[..., 3] == 0] = 0
    squashed = Image.fromarray(pixels[..., :3]).resize((336, 336), Image.Resampling.BICUBIC)
    unit = np.asarray(squashed).astype(np.float32) / np.float32(255)
    return (unit - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])


def published_mask(normalised: np.ndarray) -> np.ndarray:
    """Step 4: the darkest colour is background; (24, 24) zeros and ones."""
    brightness = normalised[..., 0] + normalised[..., 1] + normalised[..., 2]
    foreground = Image.fromarray(np.where(brightness == brightness.min(), 0, 255).astype(np.uint8))
    shares = np.asarray(foreground.resize((24, 24), Image.Resampling.BILINEAR)) / 255
    mask = (shares > 0.5).astype(int)
    return mask if mask.any() else np.ones((24, 24), int)


def published_vector(network, image: np.ndarray, cut_out: Image.Image, variant: str) -> np.ndarray:
    """Steps 2 to 6 for one image; (C,) and of unit length, since only the cosine is ever used."""
    mask = published_mask(published_input(cut_out))
    encoded = published_input(cut_out if variant == "Crop-Feat" else Image.fromarray(image))
    with torch.no_grad():
        out = network(torch.from_numpy(encoded.transpose(2, 0, 1)[None]), interpolate_pos_encoding=False)
    tokens = out.last_hidden_state[0, 1:].numpy().reshape(24, 24, -1)
    total = np.zeros(tokens.shape[-1])
    for i in range(24):
        for j in range(24):
            if mask[i, j]:
                total += tokens[i, j]
    mean = total / mask.sum()
    return mean / np.linalg.norm(mean)


def photograph(hw=(120, 160), seed=0) -> np.ndarray:
    """Coloured noise of two scales with no dark pixel in it."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 256, (6, 8, 3), np.uint8)).resize(hw[::-1], Image.Resampling.BICUBIC)
    return np.clip(np.asarray(coarse).astype(int) + rng.integers(-10, 10, (*hw, 3)), 40, 255).astype(np.uint8)


def disc(hw=(120, 160), soft=12) -> np.ndarray:
    """Bytes of alpha: a disc whose rim falls off over ``soft`` pixels."""
    y, x = np.mgrid[: hw[0], : hw[1]]
    distance = np.hypot(y - hw[0] * 0.45, x - hw[1] * 0.55)
    return (np.clip((hw[0] * 0.35 - distance) / max(soft, 1e-9), 0, 1) * 255).astype(np.uint8)


def square(side: int, hw: int, hole: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A bright centred square on bright ground with a black centre of ``hole`` pixels; the picture and its alpha."""
    image = np.full((hw, hw, 3), 200, np.uint8)
    alpha = np.zeros((hw, hw), np.uint8)
    a, b = (hw - side) // 2, (hw - hole) // 2
    alpha[a : a + side, a : a + side] = 255
    image[b : b + hole, b : b + hole] = 0
    return image, alpha


def embed(backbone, image: np.ndarray, alpha: np.ndarray, variant="Crop-Feat", **options) -> FFAResult:
    extractor = FFAExtractor(backbone, None, FFAConfig.from_released_name(variant, **options))
    return extractor.embed([extractor.prepare(image, alpha / np.float32(255))])[0]


CASES = {
    "hard disc": (photograph(), disc(soft=0)),
    "soft disc": (photograph(seed=1), disc(soft=25)),
    "portrait picture": (photograph((170, 90), 2), disc((170, 90))),
    "larger than the canvas": (photograph((400, 500), 3), disc((400, 500))),
    "black hole": square(120, 200, hole=60),
    "opaque": (photograph(seed=4), np.full((120, 160), 255, np.uint8)),
    "tiny object": square(3, 200),
    "nothing": (photograph(seed=5), np.zeros((120, 160), np.uint8)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_literal_cut_out_is_the_one_that_carvekit_makes(case):
    from carvekit.utils.mask_utils import apply_mask

    image, alpha = CASES[case]

    made = np.asarray(apply_mask(Image.fromarray(image), Image.fromarray(alpha)))

    literal = np.asarray(carvekit_cut_out(image, alpha))
    assert np.array_equal(made[..., :3], literal[..., :3])
    assert np.abs(made[..., 3].astype(int) - literal[..., 3]).max() <= 1


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", CASES)
def test_with_the_released_mask_the_vector_is_that_of_the_published_pipeline(model, case, variant):
    backbone, network = model
    image, alpha = CASES[case]

    result = embed(backbone, image, alpha, variant, released_mask=True)

    expected = published_vector(network, image, carvekit_cut_out(image, alpha), variant)
    assert np.abs(result.vector - expected).max() < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("block", [(3, 4, 11, 17), (0, 0, 24, 9), (10, 10, 11, 11)])
def test_with_the_correct_mask_the_vector_is_the_published_one_wherever_the_release_is_right(model, variant, block):
    """On whole patches, without dark or partly transparent pixels, colour and alpha tell the same."""
    backbone, network = model
    image = photograph((336, 336), seed=6)
    alpha = np.zeros((336, 336), np.uint8)
    top, left, bottom, right = (14 * cell for cell in block)
    alpha[top:bottom, left:right] = 255

    result = embed(backbone, image, alpha, variant)

    expected = published_vector(network, image, carvekit_cut_out(image, alpha), variant)
    assert result.n_patches == (block[2] - block[0]) * (block[3] - block[1])
    assert np.abs(result.vector - expected).max() < 1e-5


def test_a_black_part_of_the_object_belongs_to_it_though_the_release_takes_it_for_background(model):
    image, alpha = square(120, 200, hole=60)

    assert published_mask(published_input(carvekit_cut_out(image, alpha))).sum() == 136
    assert embed(model[0], image, alpha, released_mask=True).n_patches == 136
    assert embed(model[0], image, alpha).n_patches == 196


def test_an_opaque_cut_out_keeps_all_patches_though_the_release_drops_its_darkest_pixels(model):
    image, alpha = square(200, 200, hole=100)

    assert published_mask(published_input(carvekit_cut_out(image, alpha))).sum() == 432
    assert embed(model[0], image, alpha, released_mask=True).n_patches == 432
    assert embed(model[0], image, alpha).n_patches == 576


def test_an_opaque_picture_of_one_colour_keeps_all_patches(model):
    image, alpha = square(200, 200)

    assert published_mask(published_input(carvekit_cut_out(image, alpha))).sum() == 576
    assert embed(model[0], image, alpha).n_patches == 576
    assert not embed(model[0], image, alpha).fallback


def test_pictures_without_any_foreground_are_told_apart_and_flagged_though_the_release_makes_them_equal(model):
    backbone, network = model
    nothing = np.zeros((120, 160), np.uint8)
    images = [photograph(seed=7), photograph(seed=8)]

    published = [published_vector(network, image, carvekit_cut_out(image, nothing), "Crop-Feat") for image in images]
    ours = [embed(backbone, image, nothing) for image in images]

    assert published[0] @ published[1] == pytest.approx(1, abs=1e-6)
    assert ours[0].vector @ ours[1].vector < 0.9999
    for image, result in zip(images, ours, strict=True):
        whole = embed(backbone, image, np.full_like(nothing, 255))
        assert result.fallback
        assert result.n_patches == 576
        assert result.foreground_fraction == 0
        assert np.allclose(result.vector, whole.vector, atol=1e-6)


def test_half_transparent_pixels_enter_with_their_own_colour_and_not_with_carvekits_grey(model):
    """CarveKit turns (200, 100, 50) at alpha 64 into (147, 122, 109)."""
    backbone, _ = model
    image = np.full((50, 50, 3), (200, 100, 50), np.uint8)
    alpha = np.full((50, 50), 64, np.uint8)
    seen = []

    class Spy:
        name, weights_hash, precision = "spy", "", "fp32"
        patch_size, dim, default_size, device = 14, backbone.dim, 336, backbone.device

        def tokens(self, images, *, final_norm=True):
            seen.append((images[0].numpy().transpose(1, 2, 0) * 255).round().astype(int))
            return backbone.tokens(images, final_norm=final_norm)

    embed(Spy(), image, alpha)
    embed(Spy(), image, alpha, released_mask=True)

    assert np.asarray(carvekit_cut_out(image, alpha))[0, 0].tolist() == [147, 122, 109, 64]
    assert (seen[0] == (200, 100, 50)).all()
    assert (seen[1] == (147, 122, 109)).all()


def test_an_object_that_fills_no_patch_by_half_is_averaged_by_coverage_and_not_over_the_whole_picture(model):
    image, alpha = square(4, 200)

    published = published_mask(published_input(carvekit_cut_out(image, alpha)))
    result = embed(model[0], image, alpha)

    assert published.sum() == 576
    assert result.n_patches == 4
    assert not result.fallback
    assert result.foreground_fraction == pytest.approx((4 / 200) ** 2, rel=1e-3)


def test_the_paper_preset_is_the_published_pipeline():
    config = FFAConfig.preset("paper")

    assert (config.encode, config.pooling, config.weights) == ("cutout", "patch", "hard")
    assert (config.resize, config.size, config.final_norm) == ("squash", 336, True)
    assert not config.fast_decode
    assert not config.released_mask


def test_the_released_variant_names_map_to_what_they_do_and_not_to_what_they_say():
    assert FFAConfig.from_released_name("Crop-Feat").encode == "cutout"
    assert FFAConfig.from_released_name("Crop-Img").encode == "original"
