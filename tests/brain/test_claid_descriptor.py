"""Region vectors against slow loops over single images, cells and patches, for each kind of network."""

import json

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.backbones.feature_maps import load_feature_maps
from fiftyone_selfsame.brain.backbones.text import load_text_encoder
from fiftyone_selfsame.brain.claid.descriptor import RegionArea, RegionDescriber, load_describer
from fiftyone_selfsame.brain.claid.pooling import cell_weights, mask_weights, pool_regions, roi_cells
from fiftyone_selfsame.brain.errors import ConfigError, ModelError
from fiftyone_selfsame.fixtures.model_folders import make_model_folder, make_resnet_folder, make_text_model_folder
from PIL import Image


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    return str(make_resnet_folder(tmp_path_factory.mktemp("resnet"), seed=1))


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    return str(make_model_folder("dino", tmp_path_factory.mktemp("dino"), seed=2))


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    return str(make_text_model_folder("siglip", tmp_path_factory.mktemp("siglip"), seed=3))


def describer(name, **options):
    return load_describer(name, device="cpu", **options)


def picture(height, width, seed=0):
    """Smooth random colours, so that regions differ and resizing is harmless."""
    coarse = np.random.default_rng(seed).integers(0, 255, (5, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def as_batch(image):
    return torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / 255)[None]


def unit(vectors):
    vectors = np.asarray(vectors)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


BOXES = np.array([[0, 0, 200, 150], [10, 20, 90, 140], [100, 5, 101, 6], [64, 32, 128, 96]], float)


# --- boxes on convolutional maps --------------------------------------------------------------------------------


def gem_of_rectangles(feature_map, boxes, stride):
    """Cell by cell over the rectangle that a box touches; every box here lies inside the image."""
    out = []
    for x1, y1, x2, y2 in boxes:
        cells = [
            feature_map[y, x].double().numpy()
            for y in range(int(y1 // stride), int(-(-y2 // stride)))
            for x in range(int(x1 // stride), int(-(-x2 // stride)))
        ]
        out.append((np.mean([np.maximum(cell, 1e-6) ** 3 for cell in cells], axis=0)) ** (1 / 3))
    return unit(out)


def test_a_box_is_the_gem_of_the_cells_that_it_touches(resnet):
    image = picture(150, 200)
    (vectors,) = describer(resnet).describe([image], [RegionArea(BOXES)])
    feature_map = load_feature_maps(resnet, device="cpu").maps(as_batch(image))[0]
    np.testing.assert_allclose(vectors, gem_of_rectangles(feature_map, BOXES, 32), atol=1e-5)
    assert vectors.dtype == np.float32


def test_images_of_many_sizes_give_each_the_vectors_that_it_has_alone(resnet, monkeypatch):
    monkeypatch.setattr("fiftyone_selfsame.brain.claid.descriptor._BATCH_PIXELS", 2 * 150 * 200)
    sizes = [(150, 200), (60, 70), (150, 200), (150, 200), (200, 150), (60, 70)]
    images = [picture(*size, seed=i) for i, size in enumerate(sizes)]
    areas = [RegionArea(BOXES[: i % 3 + 1] * 0.3) for i in range(6)]
    describe = describer(resnet)

    passes = []
    maps = describe.maps.maps
    monkeypatch.setattr(describe.maps, "maps", lambda batch: passes.append(tuple(batch.shape)) or maps(batch))
    together = describe.describe(images, areas)

    assert sorted(shape[0] for shape in passes) == [1, 1, 2, 2]
    for image, area, vectors in zip(images, areas, together, strict=True):
        np.testing.assert_allclose(vectors, describe.describe([image], [area])[0], atol=1e-5)


def test_boxes_without_area_or_outside_have_zeros_and_the_others_do_not_mind(resnet):
    boxes = np.array([[5, 5, 5, 90], [300, 0, 400, 50], [-50, -50, -1, -1], [np.nan, 0, 9, 9], [-20, -20, 900, 900]])
    image = picture(150, 200)
    (vectors,) = describer(resnet).describe([image], [RegionArea(boxes)])
    whole = describer(resnet).describe([image], [RegionArea.whole((150, 200))])[0]
    assert not vectors[:4].any()
    np.testing.assert_allclose(vectors[4], whole[0], atol=1e-6)


def test_an_image_without_regions_is_not_encoded(resnet, monkeypatch):
    describe = describer(resnet)
    monkeypatch.setattr(describe.maps, "maps", lambda batch: pytest.fail("encoded"))
    assert describe.describe([], []) == []
    (vectors,) = describe.describe([picture(50, 50)], [RegionArea(np.zeros((0, 4)))])
    assert vectors.shape == (0, describe.dim)


def test_a_large_image_is_reduced_and_its_boxes_with_it(resnet):
    image = picture(300, 400)
    (vectors,) = describer(resnet, max_side=200).describe([image], [RegionArea(BOXES * 2)])
    reduced = np.asarray(Image.fromarray(image).resize((200, 150), Image.Resampling.BICUBIC))
    (expected,) = describer(resnet).describe([reduced], [RegionArea(BOXES)])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_each_axis_is_reduced_by_its_own_factor(resnet):
    describe = describer(resnet, max_side=100)
    assert describe.maps.canvas_hw((31, 1000), 100) == (3, 100)
    image = picture(31, 1000)
    (vectors,) = describe.describe([image], [RegionArea(np.array([[330.0, 16, 640, 31]]))])
    reduced = np.asarray(Image.fromarray(image).resize((100, 3), Image.Resampling.BICUBIC))
    (expected,) = describer(resnet).describe([reduced], [RegionArea(np.array([[33.0, 1, 64, 3]]))])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


@pytest.mark.parametrize("layer", ["layer4.0", "layer4.2"])
@pytest.mark.parametrize("pooling", ["gem", "mean", "max"])
def test_layer_and_pooling_are_those_asked_for(resnet, layer, pooling):
    image = picture(150, 200)
    (vectors,) = describer(resnet, layer=layer, pooling=pooling).describe([image], [RegionArea(BOXES)])
    feature_map = load_feature_maps(resnet, layer=layer, device="cpu").maps(as_batch(image))[0]
    cells, _ = roi_cells(BOXES, 32, feature_map.shape[:2])
    expected = pool_regions(feature_map, cell_weights(cells, feature_map.shape[:2]), pooling)
    np.testing.assert_allclose(vectors, unit(expected), atol=1e-5)


def test_a_crop_is_described_as_an_image_of_its_own(resnet):
    image = picture(150, 200)
    boxes = np.array([[10.2, 20.7, 89.5, 139.9], [0, 0, 0, 0], [-30, 100, 60, 400]])
    (vectors,) = describer(resnet).describe([image], [RegionArea(boxes)], crop=True)
    for index, crop in ((0, image[20:140, 10:90]), (2, image[100:, :60])):
        (expected,) = describer(resnet).describe([crop], [RegionArea.whole(crop.shape[:2])])
        np.testing.assert_allclose(vectors[index], expected[0], atol=1e-5)
    assert not vectors[1].any()
    in_place = describer(resnet).describe([image], [RegionArea(boxes)])[0]
    assert not np.allclose(vectors[0], in_place[0], atol=1e-3)


# --- masks ------------------------------------------------------------------------------------------------------


def test_a_mask_weighs_the_cells_by_what_it_covers(resnet):
    image = picture(150, 200)
    masks = np.random.default_rng(0).random((2, 18, 25)) < 0.3
    boxes = np.array([[0, 0, 200, 144], [0, 0, 200, 144]], float)
    area = RegionArea(boxes, masks, (144, 200))

    (vectors,) = describer(resnet, area="mask").describe([image], [area])

    feature_map = load_feature_maps(resnet, device="cpu").maps(as_batch(image))[0]
    weights = mask_weights(masks, (144, 200), (150, 200), (5, 7), (160, 224))
    np.testing.assert_allclose(vectors, unit(pool_regions(feature_map, weights)), atol=1e-5)
    assert not np.allclose(vectors, describer(resnet, area="box").describe([image], [area])[0], atol=1e-4)


def test_a_mask_of_whole_cells_is_a_box(resnet):
    image = picture(160, 192)
    masks = np.zeros((1, 20, 24), bool)
    masks[0, 8:16, 4:12] = True  # patches of 8 pixels: rows 64 to 128, columns 32 to 96
    box = np.array([[32, 64, 96, 128]], float)
    (by_mask,) = describer(resnet, area="mask").describe([image], [RegionArea(box, masks)])
    (by_box,) = describer(resnet, area="box").describe([image], [RegionArea(box)])
    np.testing.assert_allclose(by_mask, by_box, atol=1e-5)


def test_a_region_without_patches_or_masks_falls_back_to_its_box(resnet):
    image = picture(150, 200)
    by_box = describer(resnet).describe([image], [RegionArea(BOXES)])[0]
    empty = np.zeros((len(BOXES), 18, 25), bool)
    for area in (RegionArea(BOXES), RegionArea(BOXES, empty, (144, 200))):
        np.testing.assert_allclose(describer(resnet, area="mask").describe([image], [area])[0], by_box, atol=1e-6)


def test_an_invalid_box_has_zeros_whatever_its_mask(resnet):
    area = RegionArea(np.array([[5.0, 5, 5, 50]]), np.ones((1, 4, 4), bool))
    assert not describer(resnet, area="mask").describe([picture(60, 60)], [area])[0].any()


# --- tokens -----------------------------------------------------------------------------------------------------


def test_tokens_are_averaged_over_the_patches_of_a_box(dino):
    """With max_side=80 an image of 48×80 pixels keeps its size: 3×5 patches of 16 pixels."""
    image = picture(48, 80)
    describe = describer(dino, max_side=80)
    (vectors,) = describe.describe([image], [RegionArea(np.array([[16.0, 0, 50, 17]]))])
    tokens = describe.maps.maps(as_batch(image))[0].numpy()
    np.testing.assert_allclose(vectors, unit(tokens[0:2, 1:4].mean((0, 1)))[None], atol=1e-5)
    assert describe.pooling == "mean"


def test_boxes_follow_an_image_that_is_resized_to_whole_patches(dino):
    image = picture(75, 133)
    describe = describer(dino, max_side=80)  # 45×80, stretched to the 48×80 of whole patches
    (vectors,) = describe.describe([image], [RegionArea(np.array([[0.0, 75 / 3, 133 * 2 / 5, 75]]))])
    resized = np.asarray(Image.fromarray(image).resize((80, 48), Image.Resampling.BICUBIC))
    tokens = describe.maps.maps(as_batch(resized))[0].numpy()
    np.testing.assert_allclose(vectors, unit(tokens[1:3, 0:2].mean((0, 1)))[None], atol=1e-5)


@pytest.mark.parametrize("area_kind", ["box", "mask"])
def test_tokens_that_are_there_already_spare_the_second_pass(dino, area_kind):
    image = picture(48, 80)
    describe = describer(dino, area=area_kind, max_side=80)
    masks = np.zeros((2, 3, 5), bool)
    masks[0, 1, 2] = masks[1, :, 1:3] = True
    area = RegionArea(np.array([[32.0, 16, 48, 32], [16, 0, 48, 48]]), masks)
    tokens = describe.maps.maps(as_batch(image))[0]
    expected = describe.describe([image], [area])[0]
    np.testing.assert_allclose(describe.from_tokens(tokens, area, (48, 80)), expected, atol=1e-6)
    np.testing.assert_allclose(expected[0], unit(tokens[1, 2]), atol=1e-5)


def test_tokens_may_cover_less_than_the_image(dino):
    """A grid of 2×4 patches over 40×80 of 47×93 pixels: 20 pixels of the image per patch."""
    describe = describer(dino)
    tokens = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0))
    area = RegionArea(np.array([[20.0, 0, 60, 20]]), grid_extent_hw=(40.0, 80.0))
    vectors = describe.from_tokens(tokens, area, (47, 93))
    np.testing.assert_allclose(vectors, unit(tokens[0, 1:3].mean(0))[None], atol=1e-6)


def test_tokens_and_masks_may_cover_different_parts_of_the_image(dino):
    """The right half of a mask over all of 50×100 pixels, on tokens that end at 40×80."""
    describe = describer(dino, area="mask")
    tokens = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0))
    area = RegionArea(np.array([[50.0, 0, 100, 50]]), np.array([[[False, True]]]))
    vectors = describe.from_tokens(tokens, area, (50, 100), (40.0, 80.0))
    np.testing.assert_allclose(vectors, unit((tokens[:, 2] * 0.5 + tokens[:, 3]).sum(0))[None], atol=1e-6)


@pytest.mark.parametrize("name", ["embedded", "embedded-hybrid"])
def test_the_packages_own_models_describe_regions(name):
    (vectors,) = describer(name, area="mask").describe([picture(90, 160)], [RegionArea(BOXES * 0.6)])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert not np.allclose(vectors[1], vectors[3], atol=1e-3)


# --- the space shared with texts --------------------------------------------------------------------------------


def test_the_whole_image_is_the_models_own_embedding_and_comparable_with_texts(siglip):
    image = picture(64, 96)
    describe = describer(siglip, max_side=96)
    (vectors,) = describe.describe([image], [RegionArea.whole((64, 96))])
    embedding = describe.maps.backbone.tokens(as_batch(image)).cls
    np.testing.assert_allclose(vectors, unit(embedding), atol=1e-5)
    assert describe.joins_text
    texts = load_text_encoder(siglip, device="cpu")
    assert (texts.weights_hash, texts.dim) == (describe.weights_hash, describe.dim)


def test_a_region_is_what_the_head_makes_of_its_patches(siglip):
    image = picture(64, 96)
    describe = describer(siglip, max_side=96, area="mask")
    masks = np.random.default_rng(1).random((3, 4, 6)) < 0.4
    (vectors,) = describe.describe([image], [RegionArea(np.tile([0.0, 0, 96, 64], (3, 1)), masks)])
    tokens = describe.maps.maps(as_batch(image))[0]
    for mask, vector in zip(masks, vectors, strict=True):
        with torch.no_grad():
            alone = describe.maps.head(tokens[torch.from_numpy(mask)][None])
        np.testing.assert_allclose(vector, unit(alone[0]), atol=1e-5)


def test_a_siglip_without_its_head_is_averaged_and_refuses_attention(tmp_path):
    folder = str(make_model_folder("siglip_vision", tmp_path, vision_use_head=False))
    assert describer(folder).pooling == "mean"
    assert not describer(folder).joins_text
    with pytest.raises(ConfigError, match=r"pooling='attention' needs the pooling head.*'siglip-base'"):
        describer(folder, pooling="attention")


def test_the_mean_of_siglip_tokens_does_not_pretend_to_be_comparable_with_texts(siglip):
    assert not describer(siglip, pooling="mean").joins_text


# --- settings and faults ----------------------------------------------------------------------------------------


def test_settings_are_json_and_tell_describers_apart(resnet, dino):
    options = [{}, {"layer": "layer4.1"}, {"pooling": "max"}, {"area": "mask"}, {"max_side": 64}, {"precision": "bf16"}]
    configs = [json.dumps(describer(resnet, **option).config(), sort_keys=True) for option in options]
    configs.append(json.dumps(describer(dino).config(), sort_keys=True))
    assert len(set(configs)) == 7
    config = json.loads(configs[0])
    assert config["weights_hash"] == describer(resnet).weights_hash
    assert (config["model"], config["layer"], config["pooling"], config["area"]) == (resnet, "layer4.0", "gem", "box")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"pooling": "sum"}, r"pooling='sum' is unknown; use one of gem, mean, max, attention"),
        ({"pooling": "attention"}, r"pooling='attention' needs the pooling head"),
        ({"area": "hull"}, r"area='hull' is unknown; use one of box, mask"),
        ({"max_side": 15}, r"max_side=15 is less than one cell .* 16 pixels"),
    ],
)
def test_options_that_cannot_work_are_refused_with_advice(dino, options, named):
    with pytest.raises(ConfigError, match=named):
        describer(dino, **options)


def test_attention_is_not_for_convolutions(resnet):
    with pytest.raises(ConfigError, match="pooling='attention' needs the pooling head"):
        describer(resnet, pooling="attention")


def test_tokens_are_refused_by_a_network_of_maps_and_by_another_backbone(resnet, dino):
    area = RegionArea.whole((64, 64))
    with pytest.raises(ConfigError, match=r"cannot describe regions by tokens"):
        describer(resnet).from_tokens(torch.rand(4, 4, 32), area, (64, 64))
    with pytest.raises(ConfigError, match=r"tokens of shape \(4, 4, 48\)"):
        describer(dino).from_tokens(torch.rand(4, 4, 48), area, (64, 64))


def test_areas_of_a_wrong_shape_are_refused():
    with pytest.raises(ConfigError, match=r"boxes must be \(R, 4\)"):
        RegionArea(np.zeros(4))
    with pytest.raises(ConfigError, match=r"masks must be \(2, h, w\).*\(3, 4, 4\)"):
        RegionArea(np.zeros((2, 4)), np.zeros((3, 4, 4), bool))


@pytest.mark.parametrize(
    ("images", "named"),
    [
        ([], "0 images and 1 areas"),
        ([np.zeros((8, 8), np.uint8)], r"must be \(H, W, 3\) uint8"),
        ([np.zeros((8, 8, 3), np.float32)], "float32"),
        ([np.zeros((0, 8, 3), np.uint8)], r"\(0, 8, 3\)"),
    ],
)
def test_images_that_cannot_be_described_are_refused(resnet, images, named):
    with pytest.raises(ConfigError, match=named):
        describer(resnet).describe(images, [RegionArea.whole((8, 8))])


def test_features_that_are_not_finite_are_a_fault_of_the_model(dino):
    tokens = torch.rand(4, 4, 32)
    tokens[2, 2, 5] = torch.nan
    with pytest.raises(ModelError, match="not finite; try precision='fp32'"):
        describer(dino).from_tokens(tokens, RegionArea.whole((64, 64)), (64, 64))


def test_a_describer_may_be_made_of_any_network_with_maps(resnet):
    maps = load_feature_maps(resnet, device="cpu")
    assert RegionDescriber(maps).config() == describer(resnet).config()
