"""Checks of correspondence: tokens of points, decoding, fusion, instance distance, alignment and poses."""

from collections.abc import Mapping

import numpy as np
import torch
from fiftyone_selfsame.brain.correspondence.alignment import (
    AlignConfig,
    AlignedMatches,
    AlignedQuery,
    Alignment,
    match_aligned,
    mirrored_order,
    nearest_view,
    view_points,
)
from fiftyone_selfsame.brain.correspondence.decoding import DecodeConfig, decode
from fiftyone_selfsame.brain.correspondence.features import ImageFeatures
from fiftyone_selfsame.brain.correspondence.fusion import fuse, gather_layers, joint_components, unit_features
from fiftyone_selfsame.brain.correspondence.grids import cells_to_points, points_to_cells, released_canvas_points
from fiftyone_selfsame.brain.correspondence.instance_distance import (
    RELEASED_RESOLUTION,
    instance_distance,
    mutual_distance,
    resampled,
    resampled_mask,
)
from fiftyone_selfsame.brain.correspondence.keypoint_groups import KeypointGroups, known_groups
from fiftyone_selfsame.brain.correspondence.matching import (
    KeypointQuery,
    MatchConfig,
    blend,
    match_keypoints,
    similarity_map,
)
from fiftyone_selfsame.brain.correspondence.templates import POSES, four_way_pose, two_way_pose
from fiftyone_selfsame.brain.correspondence.views import IDENTITY, MIRROR
from fiftyone_selfsame.brain.geometry import plan_geometry
from fiftyone_selfsame.brain.metrics.keypoints import correct_points, pck_scores

Arrays = Mapping[str, np.ndarray]

_SPAIR = "aeroplane bicycle bird boat bottle bus car cat chair cow dog horse motorbike person pottedplant sheep train"
_SPAIR = (*_SPAIR.split(), "tvmonitor")

_CANVAS = plan_geometry((840, 840), 840, 14, "letterbox")
_WHOLE = np.ones((60, 60), bool)
_PIXELS = 0.02


def check_token_lookup(arrays: Arrays) -> None:
    """Cells of points without clipping, on the very edge of the canvas too."""
    cells = points_to_cells(arrays["patch__kps"][:, :2], (60, 60), 14, clip=False)
    np.testing.assert_array_equal(cells, arrays["patch__index_60"])


def check_canvas_points(arrays: Arrays) -> None:
    """Keypoints on the letterboxed canvas, and its margins and scale; unseen points do not count."""
    sizes, expected = arrays["pad__sizes_wh"], arrays["pad__kps_840"]
    for index, (width, height) in enumerate(sizes):
        geometry = plan_geometry((int(height), int(width)), 840, 14, "letterbox")
        points, seen = arrays["pad__kps"][index], arrays["pad__kps"][index][:, 2] > 0
        found = released_canvas_points(points[:, :2], geometry)
        np.testing.assert_allclose(found[seen], expected[index][seen, :2], rtol=0, atol=1e-3)
        top, left = geometry.content[:2]
        scale = 840 / max(width, height)
        np.testing.assert_allclose((left, top, scale), arrays["pad__offset_x_y_scale"][index], rtol=1e-6)


def check_mirrored_points(arrays: Arrays) -> None:
    """Mirror permutations and mirrored keypoints of every category, all couples or visible ones exchanged."""
    for name in (key.removesuffix("__perm_full") for key in arrays if key.endswith("__perm_full")):
        visible, points = arrays[f"{name}__vis"], arrays[f"{name}__kps"]
        # Rows of both halves differ in length by the slots that the table does not mention.
        partners = _groups(name, len(visible)).permutation
        np.testing.assert_array_equal(mirrored_order(partners), arrays[f"{name}__perm_full"])
        np.testing.assert_array_equal(mirrored_order(partners, visible), arrays[f"{name}__perm_given_vis"])
        for kind, lending in (("full", np.ones(len(visible), bool)), ("given_vis", visible)):
            found = view_points(points[:, :2], MIRROR, (840, 840), partners, lending)
            np.testing.assert_allclose(found, arrays[f"{name}__kps_flipped_{kind}"][:, :2], rtol=0, atol=1e-3)


def check_transfer(arrays: Arrays) -> None:
    """Matches of keypoints between two grids of 60 × 60, decoded in every way."""
    source, target = (_described(arrays[key]) for key in ("desc1", "desc2"))
    query = KeypointQuery(source, target, arrays["kps_src"][:, :2])
    ways = {"argmax": DecodeConfig("nearest"), "soft_window_0": DecodeConfig("soft")}
    for key in _endings(arrays, "pred_soft_"):
        *words, number = key.removeprefix("pred_").split("_")
        if words == ["soft", "gauss", "sigma"]:
            ways["_".join([*words, number])] = DecodeConfig("gaussian", sigma=float(number))
        elif int(number):
            ways["_".join([*words, number])] = DecodeConfig("window", radius=int(number), window_fill="zero")
    for name, decoding in ways.items():
        (found,) = match_keypoints([query], MatchConfig(decoding, clip_tokens=False))
        np.testing.assert_allclose(found.points, arrays[f"pred_{name}"], rtol=0, atol=_PIXELS, err_msg=name)
        np.testing.assert_array_equal(found.source_cells, arrays["patch_idx"])
        np.testing.assert_array_equal(found.cells, arrays["nn_index"])
        np.testing.assert_allclose(found.similarity, arrays["max_similarity"], rtol=0, atol=1e-5)


def check_normalisation(arrays: Arrays) -> None:
    """Two families of features side by side, each of unit length or all together."""
    tokens = torch.from_numpy(arrays["zs_tokens"].astype(np.float32))
    _close(fuse(tokens[:, :3200], tokens[:, 3200:]), arrays["zs_normalised"], 1e-5)
    _close(unit_features(tokens), arrays["plain_normalised"], 1e-5)


def check_soft_argmax(arrays: Arrays) -> None:
    """Decoders on a small volume; places are also given on a ramp from -1 to 1."""
    side = round(len(arrays["corr"]) ** 0.5)
    volume = torch.from_numpy(arrays["corr"]).view(-1, side, side)
    for key in _endings(arrays, "map_window_"):
        radius = int(key.split("_")[-1])
        config = DecodeConfig("window", radius=radius, window_fill="zero") if radius else DecodeConfig("soft")
        _close(decode(volume, config).places, arrays[key].reshape(-1, 2), 1e-3)
    for key in _endings(arrays, "softargmax_x_beta_"):
        beta = key.split("_")[-1]
        places = decode(volume, DecodeConfig("soft", temperature=float(beta))).places * 2 / (side - 1) - 1
        _close(places[:, 0], arrays[key].ravel(), 1e-5)
        _close(places[:, 1], arrays[f"softargmax_y_beta_{beta}"].ravel(), 1e-5)


def check_gathered(arrays: Arrays) -> None:
    """Layers of different sizes joined on the finest grid."""
    layers = [_planes(arrays[name]) for name in ("s3", "s4", "s5", "dino")]
    _close(gather_layers(layers).flatten(0, 1), arrays["gathered"], 1e-4)


def check_joint_components(arrays: Arrays) -> None:
    """Products of descriptors in the principal components of a pair, whose directions have no sign."""
    layers = [[_planes(arrays[f"{name}_{image}"]) for name in ("s5", "s4", "s3")] for image in (1, 2)]
    dims = int(arrays["out_shape"][1]) // 3
    first, second = joint_components(*layers, dims=dims)
    assert first.shape == (*arrays["out_shape"][2:], arrays["out_shape"][1])
    first, second = first.flatten(0, 1), second.flatten(0, 1)
    for product, key in ((first @ second.T, "gram_12"), (first @ first.T, "gram_11")):
        _close(product, arrays[key], 1e-2 * np.abs(arrays[key]).max())
    norms = [block.norm() for block in first.split(dims, dim=1)]
    np.testing.assert_allclose(norms, arrays["order_first_block_norm"], rtol=1e-3)


def check_pose_alignment(arrays: Arrays) -> None:
    """Distances of the source and its mirror image, the choice between them, and keypoints after it."""
    for name in sorted({key.split("__")[0] for key in arrays if key.startswith("case")}):
        _check_alignment({key.removeprefix(f"{name}__"): arrays[key] for key in arrays if key.startswith(f"{name}__")})


def _check_alignment(case: Arrays) -> None:
    source, mirrored, target = (_described(case[f"feat_{key}"]) for key in ("src", "src_flip", "trg"))
    masks = case["mask_src"], case["mask_trg"]
    distances = _released_distances(source, mirrored, target, *masks)
    found = [distances[IDENTITY], distances[MIRROR], _imd(target, source, *masks[::-1])]
    np.testing.assert_allclose(found, [case["imd_original"], case["imd_flip"], case["imd_trg_to_src"]], atol=1e-4)
    mutual = {IDENTITY: source, MIRROR: mirrored}
    mutual = {view: mutual_distance(one.features, target.features) for view, one in mutual.items()}
    found = [mutual[IDENTITY], mutual[MIRROR]]
    np.testing.assert_allclose(found, [case["mutual_nn_original"], case["mutual_nn_flip"]], atol=1e-4)
    points, seen = case["kps_src"][:, :2], [case[f"kps_{end}"][:, 2] > 0 for end in ("src", "trg")]
    partners = _groups(str(case["category"]), len(points)).permutation
    turned = view_points(points, MIRROR, (840, 840), partners, seen[0] & seen[1])
    np.testing.assert_allclose(turned, case["kps_src_flip"][:, :2], atol=1e-3)
    config = MatchConfig(DecodeConfig("window", radius=5, window_fill="zero"), clip_tokens=False)
    _pixels(match_keypoints([KeypointQuery(mirrored, target, turned)], config)[0].points, case["pred_flip"])
    query = AlignedQuery({IDENTITY: source, MIRROR: mirrored}, target, points, partners, *seen)
    for criterion, ending in ((distances, "masked"), (None, "mutual_nn")):
        result = _aligned(query, config, criterion)
        assert (result.alignment.view == MIRROR) == case[f"flip_chosen_{ending}"]
        _pixels(result.plain.points, case["pred_original"])
        _pixels(result.matches.points, case[f"pred_selected_{ending}"])


def check_evaluation_loop(arrays: Arrays) -> None:
    """From features to PCK, without alignment and with it, by masks and without."""
    targets: list[np.ndarray] = []
    predictions: dict[str, list[np.ndarray]] = {}
    zero = MatchConfig(DecodeConfig("window", radius=7, window_fill="zero"), clip_tokens=False)
    narrow = MatchConfig(DecodeConfig("window", radius=5, window_fill="zero"), clip_tokens=False)
    for index in range(len(arrays["kps"]) // 2):
        case = {key.split("__")[1]: arrays[key] for key in arrays if key.startswith(f"pair{index}__")}
        source, mirrored, target = (_described(case[f"feat_{key}"]) for key in ("src", "src_flip", "trg"))
        ends = arrays["kps"][2 * index : 2 * index + 2]
        points, seen = ends[0][:, :2], ends[..., 2] > 0
        both = seen[0] & seen[1]
        partners = _groups(str(arrays["category"]), len(points)).permutation
        query = AlignedQuery({IDENTITY: source, MIRROR: mirrored}, target, points, partners, *seen)
        masked = _released_distances(source, mirrored, target, case["mask_src"], case["mask_trg"])
        nearest = MatchConfig(DecodeConfig("nearest"), clip_tokens=False)
        ways = {name: _aligned(query, config, None).plain for name, config in (("argmax", nearest), ("window7", zero))}
        ways["window5_flip_masked"] = _aligned(query, narrow, masked).matches
        ways["window5_flip_mutual"] = _aligned(query, narrow, None).matches
        for name, found in ways.items():
            _pixels(found.points[both], arrays[f"{name}__pred_xy"][index][both])
            predictions.setdefault(name, []).append(found.points[both])
        targets.append(ends[1][both, :2])
    for name, found in predictions.items():
        for column, alpha in enumerate(arrays["alpha"]):
            rows = zip(found, targets, alpha * arrays["thresholds_px"], strict=True)
            scores = pck_scores([correct_points(*row) for row in rows])
            np.testing.assert_allclose(scores.per_point, arrays[f"{name}__per_point"][column], atol=1e-5)
            np.testing.assert_allclose(scores.per_image, arrays[f"{name}__per_image"][column], atol=1e-5)


def check_template_distances(arrays: Arrays) -> None:
    """A test picture against templates: only its own mask counts."""
    size = int(arrays["resolution"])
    picture = resampled(_described(arrays["feat_test"]).features, size)
    region = resampled_mask(arrays["mask_test"], size)
    for name in "ab":
        template = resampled(_described(arrays[f"feat_template_{name}"]).features, size)
        np.testing.assert_allclose(
            instance_distance(picture, template, region), arrays[f"imd_template_{name}"], rtol=0, atol=1e-4
        )


def check_pose_votes(arrays: Arrays) -> None:
    """Votes of the sets of templates, and how often they are right."""
    letters = np.array([pose[0] for pose in POSES])
    distances = arrays["vote_distances"].reshape(len(arrays["vote_labels"]), -1, len(POSES))
    four, (front, right) = letters[four_way_pose(distances)], two_way_pose(distances)
    ends, sides = np.where(front, "f", "b"), np.where(right, "r", "l")
    np.testing.assert_array_equal(four, arrays["vote_pred_four_way"])
    np.testing.assert_array_equal(np.char.add(ends, sides), arrays["vote_pred_two_way"])
    labels = arrays["vote_labels"]
    faces = np.isin(labels, ["f", "b"])
    hits = np.where(faces, ends == labels, sides == labels)
    shares = (four == labels).mean(), hits[~faces].mean(), hits[faces].mean(), hits.mean()
    np.testing.assert_allclose(shares, [arrays[f"acc_{key}"] for key in ("four", "lr", "fb", "lr_or_fb")], atol=1e-6)


def check_blended_matches(arrays: Arrays) -> None:
    """Nearest cells by one or two families of features, with and without a map to the sphere."""
    for kind, fused in (("vit_cos", False), ("fused_l2", True)):
        for ending in ("", "_sphere"):
            found = [_blended(arrays, index, fused, bool(ending)) for index in range(len(arrays["desc_src"]))]
            np.testing.assert_allclose(
                np.concatenate(found), arrays[f"{kind}{ending}__pred_xy_mutually_visible"], rtol=0, atol=_PIXELS
            )


def _blended(arrays: Arrays, index: int, fused: bool, sphere: bool) -> np.ndarray:
    """Matches of the mutually visible keypoints of a pair, in pixels of the canvas."""
    ends = arrays["kps"][2 * index : 2 * index + 2]
    both = (ends[..., 2] > 0).all(0)
    cells = points_to_cells(ends[0][both, :2], (60, 60), 14)
    raw = [torch.from_numpy(arrays[f"desc_{end}"][index].astype(np.float32)) for end in ("src", "trg")]
    others = [torch.from_numpy(arrays[f"other_{end}"][index].astype(np.float32)) for end in ("src", "trg")]
    features = [unit_features(one) for one in raw]
    if fused:
        features = [fuse(other, one, renormalise=False) for other, one in zip(others, raw, strict=True)]
    weight, bias = (torch.from_numpy(arrays[f"sphere_linear_{part}"]) for part in ("weight", "bias"))
    spheres = [unit_features(one @ weight.T + bias) for one in raw]
    kind = "euclidean" if fused else "cosine"
    found, other = (
        similarity_map(source[cells], target.view(60, 60, -1), kind) for source, target in (features, spheres)
    )
    places = decode(blend(found, other) if sphere else found, DecodeConfig("nearest")).places
    return cells_to_points(places.numpy(), 14, "pixel")


def _aligned(query: AlignedQuery, config: MatchConfig, distances: Mapping | None) -> AlignedMatches:
    """By the distances given, or by mutual neighbours."""
    chosen = None if distances is None else [Alignment(nearest_view(distances), distances)]
    align_config = AlignConfig(criterion="mutual", visibility="mutual")
    return match_aligned([query], config, align_config, alignments=chosen)[0]


def _released_distances(
    source: ImageFeatures, mirrored: ImageFeatures, target: ImageFeatures, mask: np.ndarray, target_mask: np.ndarray
) -> dict:
    return {
        IDENTITY: _imd(source, target, mask, target_mask),
        MIRROR: _imd(mirrored, target, MIRROR.apply(mask), target_mask),
    }


def _imd(source: ImageFeatures, target: ImageFeatures, mask: np.ndarray, target_mask: np.ndarray) -> float:
    size = RELEASED_RESOLUTION
    maps = (resampled(one.features, size) for one in (source, target))
    return instance_distance(*maps, resampled_mask(mask, size), resampled_mask(target_mask, size))


def _described(tokens: np.ndarray) -> ImageFeatures:
    return ImageFeatures(unit_features(torch.from_numpy(tokens.astype(np.float32))).view(60, 60, -1), _CANVAS, _WHOLE)


def _groups(category: str, slots: int) -> KeypointGroups:
    data_set = "ap10k" if category == "ap10k" else "spair71k"
    groups = known_groups(data_set, None if category == "ap10k" else category)
    return groups.resized(slots) if slots > len(groups) else groups


def _planes(layer: np.ndarray) -> torch.Tensor:
    """``(h, w, C)`` of ``(1, C, h, w)``."""
    return torch.from_numpy(layer[0]).permute(1, 2, 0)


def _endings(arrays: Arrays, prefix: str) -> list[str]:
    return [key for key in arrays if key.startswith(prefix)]


def _close(found: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=tolerance)


def _pixels(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=_PIXELS)


_LOOP = ("pair0__feat_src", "pair0__feat_trg", "pair0__mask_", "pair", "kps", "thresholds_px", "category", "alpha")
_LOOP += tuple(
    f"{way}__{array}"
    for way in ("argmax", "window7", "window5_flip_masked", "window5_flip_mutual")
    for array in ("pred_xy", "per_point", "per_image")
)
_KAP = ("desc_src", "desc_trg", "other_src", "other_trg", "kps", "sphere_linear_", "vit_cos__pred_xy")
_KAP += ("vit_cos_sphere__pred_xy", "fused_l2__pred_xy", "fused_l2_sphere__pred_xy")

_MIRRORED = ("cat__vis", "cat__perm_", "cat__kps")
_MIRRORED += tuple(f"{name}__" for name in (*_SPAIR, "ap10k"))
_COMPONENTS = tuple(f"{layer}_{image}" for layer in ("s5", "s4", "s3") for image in (1, 2))

# Name, beginnings of the names of the arrays that are needed, check.
CHECKS = (
    ("token_lookup", ("patch__",), check_token_lookup),
    ("canvas_points", ("pad__sizes_wh", "pad__kps", "pad__kps_840", "pad__offset"), check_canvas_points),
    ("mirrored_points", _MIRRORED, check_mirrored_points),
    ("transfer", ("desc1", "desc2", "kps_src", "patch_idx", "nn_index", "max_similarity", "pred_"), check_transfer),
    ("normalisation", ("zs_", "plain_normalised"), check_normalisation),
    ("soft_argmax", ("corr", "map_window_", "softargmax_"), check_soft_argmax),
    ("gathered", ("s3", "s4", "s5", "dino", "gathered"), check_gathered),
    ("joint_components", (*_COMPONENTS, "gram_", "out_shape", "order_"), check_joint_components),
    ("pose_alignment", ("case0__imd_", "case"), check_pose_alignment),
    ("evaluation_points", _LOOP, check_evaluation_loop),
    ("template_distances", ("imd_template_", "feat_", "mask_", "resolution"), check_template_distances),
    ("pose_votes", ("vote_", "acc_"), check_pose_votes),
    ("blended_matches", _KAP, check_blended_matches),
)
