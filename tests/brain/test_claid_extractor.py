"""From images to regions: sizes, boxes, parents and vectors of the whole pipeline, and its named presets."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.backbones import load_backbone
from fiftyone_selfsame.brain.claid.descriptor import RegionArea, load_describer
from fiftyone_selfsame.brain.claid.hierarchy import detect
from fiftyone_selfsame.brain.claid.options import DetectorOptions
from fiftyone_selfsame.brain.claid.presets import PRESETS, fitted_preset, region_extractor, region_preset
from fiftyone_selfsame.brain.claid.regions import RegionExtractor, WorkingSize, emitted_parents
from fiftyone_selfsame.brain.errors import ConfigError, ImageError
from fiftyone_selfsame.fixtures.model_folders import make_resnet_folder

OPTIONS = DetectorOptions(min_patches=3, alpha=0.5)
SIZE = WorkingSize(96, 200)


def picture(seed=0, hw=(120, 170)):
    """Large plain blocks on a plain ground."""
    rng = np.random.default_rng(seed)
    image = np.full((*hw, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(4):
        y, x = rng.integers(0, hw[0] - 40), rng.integers(0, hw[1] - 40)
        image[y : y + 48, x : x + 48] = rng.integers(0, 256, 3)
    return image


@pytest.fixture(scope="module")
def extractor():
    backbone = load_backbone("embedded-hybrid", device="cpu")
    return RegionExtractor(backbone, load_describer("embedded-hybrid", area="mask", device="cpu"), OPTIONS, SIZE)


def extract(extractor, image):
    return extractor.extract([extractor.prepare(image)])[0]


def test_an_image_is_reduced_and_cropped_to_whole_patches(extractor):
    prepared = extractor.prepare(picture(hw=(200, 310)))

    assert prepared.resized_hw == (96, 148)
    assert prepared.canvas.shape == (3, 96, 144)
    assert prepared.image_hw == (200, 310)
    assert prepared.image is None
    assert extractor.prepare(picture(hw=(90, 90))).resized_hw == (90, 90)


def test_regions_are_the_emitted_ones_of_the_hierarchy_in_pixels_of_the_image(extractor):
    image = picture()
    prepared = extractor.prepare(image)

    regions = extractor.extract([prepared])[0]

    tokens = extractor.backbone.tokens(prepared.canvas[None]).patch[0]
    tree = detect(tokens, OPTIONS)
    np.testing.assert_array_equal(regions.masks, tree.masks[tree.emitted])
    np.testing.assert_array_equal(regions.level, tree.level[tree.emitted])
    scale = np.array(prepared.image_hw) / prepared.resized_hw
    for mask, box, area in zip(regions.masks, regions.boxes, regions.area, strict=True):
        rows, columns = np.nonzero(mask)
        expected = [columns.min() * 16 * scale[1], rows.min() * 16 * scale[0]]
        expected += [(columns.max() + 1) * 16 * scale[1], (rows.max() + 1) * 16 * scale[0]]
        np.testing.assert_allclose(box, expected)
        assert area == pytest.approx(mask.sum() * 256 * scale.prod() / (120 * 170))
    np.testing.assert_allclose(regions.saliency, tree.hits[tree.emitted] / tree.size[tree.emitted])


def test_vectors_are_the_means_of_the_tokens_under_the_masks(extractor):
    prepared = extractor.prepare(picture())

    regions = extractor.extract([prepared])[0]

    tokens = extractor.backbone.tokens(prepared.canvas[None]).patch[0].numpy()
    means = np.stack([tokens[mask].mean(0) for mask in regions.masks])
    np.testing.assert_allclose(regions.vectors, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-5)


def test_a_batch_gives_what_its_images_give_alone(extractor):
    images = [picture(seed) for seed in range(3)]

    together = extractor.extract([extractor.prepare(image) for image in images])

    for image, regions in zip(images, together, strict=True):
        alone = extract(extractor, image)
        np.testing.assert_array_equal(regions.masks, alone.masks)
        np.testing.assert_allclose(regions.vectors, alone.vectors, atol=1e-5)


def test_parents_step_over_regions_that_are_not_emitted():
    class Tree:
        emitted = np.array([True, False, True, True, True])
        parent = np.array([-1, -1, 0, 1, 2])

    assert emitted_parents(Tree).tolist() == [-1, -1, 0, -1, 1]


def test_a_given_area_is_described_as_a_region_is(extractor):
    image = picture()
    regions = extract(extractor, image)
    height, width = regions.masks.shape[1:]
    down, across = regions.extent_hw

    # The same patches as a mask of the whole image, pixel by pixel.
    rows = np.minimum((np.arange(120) + 0.5) / down * height, height).astype(int)
    columns = np.minimum((np.arange(170) + 0.5) / across * width, width).astype(int)
    padded = np.pad(regions.masks, ((0, 0), (0, 1), (0, 1)))
    masks = padded[:, rows][:, :, columns]
    vectors = extractor.describe(image, regions.boxes, masks)

    assert (np.einsum("rd,rd->r", vectors, regions.vectors) > 0.999).all()


def test_a_box_is_described_by_the_tokens_it_touches(extractor):
    image = picture()

    (vector,) = extractor.describe(image, np.array([[0.0, 0.0, 170.0, 120.0]]))

    tokens = extractor.backbone.tokens(extractor.prepare(image).canvas[None]).patch[0].flatten(0, 1).mean(0)
    np.testing.assert_allclose(vector, (tokens / tokens.norm()).numpy(), atol=1e-5)
    assert not extractor.describe(image, np.array([[500.0, 500.0, 600.0, 600.0]])).any()


def test_a_box_that_is_cut_out_knows_nothing_of_its_surroundings(extractor):
    image = picture()
    box = np.array([[20.0, 30.0, 84.0, 94.0], [500.0, 500.0, 600.0, 600.0]])
    changed = image.copy()
    changed[:30] = changed[94:] = 0

    (vector, outside) = extractor.describe(image, box, crop=True)

    np.testing.assert_allclose(vector, extractor.describe(changed, box, crop=True)[0], atol=1e-6)
    alone = extractor.describe(np.ascontiguousarray(image[30:94, 20:84]), np.array([[0.0, 0.0, 64.0, 64.0]]))[0]
    np.testing.assert_allclose(vector, alone, atol=1e-6)
    assert not outside.any()
    assert np.abs(extractor.describe(image, box)[0] - extractor.describe(changed, box)[0]).max() > 1e-4


def test_another_network_describes_at_its_own_size(tmp_path):
    folder = make_resnet_folder(tmp_path)
    backbone = load_backbone("embedded-hybrid", device="cpu")
    describer = load_describer(folder, device="cpu")
    extractor = RegionExtractor(backbone, describer, OPTIONS, SIZE)
    image = picture()

    prepared = extractor.prepare(image)
    regions = extractor.extract([prepared])[0]

    assert extractor.decode_min_side is None
    assert prepared.image is image
    area = RegionArea(regions.boxes, regions.masks, regions.extent_hw)
    np.testing.assert_allclose(regions.vectors, describer.describe([image], [area])[0], atol=1e-6)
    np.testing.assert_allclose(
        extractor.describe(image, regions.boxes), describer.describe([image], [RegionArea(regions.boxes)])[0], atol=1e-6
    )
    cut_out = describer.describe([image], [RegionArea(regions.boxes)], crop=True)[0]
    np.testing.assert_allclose(extractor.describe(image, regions.boxes, crop=True), cut_out, atol=1e-6)


def test_a_describer_with_a_size_of_its_own_takes_a_second_pass():
    backbone = load_backbone("embedded-hybrid", device="cpu")
    sized = load_describer("embedded-hybrid", max_side=224, device="cpu")

    config = RegionExtractor(backbone, sized, OPTIONS, SIZE).config_dict()

    assert config["shared_tokens"] is False
    assert config["descriptor"]["max_side"] == 224
    assert (config["short_side"], config["min_patches"], config["dim"]) == (96, 3, sized.dim)


def test_tokens_are_taken_in_float32_whatever_the_canvas(extractor):
    prepared = extractor.prepare(picture())

    assert prepared.canvas.dtype == torch.float32
    assert 0 <= prepared.canvas.min() <= prepared.canvas.max() <= 1


def test_presets_are_the_published_pipelines_and_embedded_models_get_sizes_that_fit_them():
    assert (PRESETS["paper"].backbone, PRESETS["paper"].descriptor) == ("dino-vitb8", "resnet50")
    assert (PRESETS["code"].layer, PRESETS["code"].detector.tau2) == ("layer4.1", 0.1)
    assert fitted_preset("default", "dinov2-small") == region_preset("default")
    assert fitted_preset("paper", "embedded") == region_preset("paper")
    fitted = fitted_preset("default", "embedded-hybrid")
    assert fitted != region_preset("default")
    assert replace(fitted, size=WorkingSize(), detector=DetectorOptions(), pooling=None) == region_preset("default")
    with pytest.raises(ConfigError, match="quick"):
        region_preset("quick")


def test_a_pipeline_is_its_preset_with_what_the_user_says_otherwise(extractor, tmp_path):
    folder = make_resnet_folder(tmp_path)
    backbone = extractor.backbone

    plain = region_extractor("default", backbone, {"alpha": None})
    large = region_extractor("default", backbone, {"short_side": 1000, "tau2": 0.1, "pooling": "mean"})
    other = region_extractor("code", backbone, {"descriptor": "tokens"})
    conv = region_extractor("default", backbone, {"descriptor": str(folder)}, device="cpu")

    assert (plain.options.alpha, plain.size.enlarge, plain.describer.pooling) == (0.6, True, "gem")
    assert (large.size.short_side, large.size.long_side, large.options.tau2) == (1000, 1000, 0.1)
    assert large.describer.pooling == "mean"
    assert (other.options.box_mode, other.describer.pooling, other.describer.name) == (
        "reference",
        "mean",
        backbone.name,
    )
    assert (conv.describer.name, conv.describer.pooling) == (str(folder), "gem")
    with pytest.raises(ConfigError, match="layers"):
        region_extractor("default", backbone, {"layer": "layer4.0"})
    with pytest.raises(ConfigError, match="colour"):
        region_extractor("default", backbone, {"colour": 1})


def test_small_pictures_are_enlarged_where_that_is_asked_for(extractor):
    enlarging = RegionExtractor(extractor.backbone, extractor.describer, OPTIONS, WorkingSize(96, 200, enlarge=True))

    assert enlarging.prepare(picture(hw=(48, 64))).resized_hw == (96, 128)
    assert extractor.prepare(picture(hw=(48, 64))).resized_hw == (48, 64)


def test_an_image_of_less_than_a_patch_is_explained(extractor):
    with pytest.raises(ImageError, match=r"400×12 pixels.*enlarge=True"):
        extractor.prepare(np.zeros((12, 400, 3), np.uint8))


@pytest.mark.parametrize("sides", [(0, 100), (200, 100)])
def test_sizes_that_cannot_be_are_refused(sides):
    with pytest.raises(ConfigError, match="short_side"):
        WorkingSize(*sides)
