"""The clustering rows of ``quality identity``."""

import json

import numpy as np
from fiftyone_selfsame.benchmarks.clusters import PLAIN, cluster_rows
from fiftyone_selfsame.benchmarks.quality import main
from fiftyone_selfsame.brain.clusters import CLUSTER_METHODS, CLUSTER_SIMILARITIES
from PIL import Image


def bundles(n_objects, n_images, spread, seed=0):
    rng = np.random.default_rng(seed)
    objects = np.repeat(np.arange(n_objects), n_images)
    rows = np.eye(n_objects, 24)[objects] + rng.normal(0, spread, (len(objects), 24))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), objects


def test_every_way_has_a_row_and_a_second_look_that_knows_the_truth_wins():
    vectors, objects = bundles(8, 6, 0.35)
    looks = []

    def look(pairs):
        looks.append(len(pairs))
        same = objects[pairs[:, 0]] == objects[pairs[:, 1]]
        return np.where(same, 0.9, 0.1) + np.random.default_rng(0).uniform(0, 0.05, len(pairs))

    rows = cluster_rows(vectors, objects.tolist(), look)

    ways = [(row["method"], row["similarity"], row["verified"]) for row in rows if PLAIN not in row["method"]]
    expected = [(m, s, v) for v in ("no", "yes") for s in CLUSTER_SIMILARITIES for m in CLUSTER_METHODS]
    assert ways == expected
    assert len(rows) == len(expected) + 3
    assert len(looks) == 1
    figures = {(row["method"], row["similarity"], row["verified"]): row for row in rows}
    plain = max(row["ari"] for row in rows if PLAIN in row["method"])
    best = figures["agglomerative", "reciprocal", "yes"]
    assert best["ari"] > max(plain, figures["agglomerative", "reciprocal", "no"]["ari"])
    assert all(row["best_ari"] >= row["ari"] - 1e-9 for row in rows if row.get("best_ari") is not None)


def test_the_command_prints_them_below_the_other_figures_and_writes_them_beside(tmp_path, capsys):
    rng, items = np.random.default_rng(0), []
    for name, colour in {"red": (220, 30, 30), "blue": (30, 30, 220)}.items():
        for view in range(3):
            image = rng.integers(0, 60, (64, 64, 3), np.uint8)
            image[12 + 4 * view : 44 + 4 * view, 16:48] = colour
            Image.fromarray(image).save(tmp_path / f"{name}{view}.png")
            items.append({"path": f"{name}{view}.png", "object_id": name})
    (tmp_path / "manifest.json").write_text(json.dumps({"name": "two", "items": items}))

    out = tmp_path / "out.json"
    status = main(["identity", "--data", str(tmp_path), "--model", "embedded-untrained", "--json", str(out)])

    assert status == 0
    assert "clusters of FFA vectors on two: 6 images, 2 objects" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out.clusters.json").read_text())["rows"]
    assert {row["verified"] for row in rows} == {"yes", "no"}
    assert len(rows) == 21
