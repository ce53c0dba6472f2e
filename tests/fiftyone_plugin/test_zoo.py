"""The repository as FiftyOne downloads it, from an archive: a source of zoo models, and a plugin."""

import functools
import http.server
import json
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
from fiftyone_selfsame.brain.backbones import list_backbones
from fiftyone_selfsame.brain.backbones.embedded import EMBEDDED_FOLDER
from fiftyone_selfsame.brain.errors import ConfigError, ModelError
from fiftyone_selfsame.fiftyone_plugin import zoo
from fiftyone_selfsame.fixtures.model_folders import make_model_folder
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("brain", "fiftyone_plugin", "operators")


def _manifest():
    return json.loads((ROOT / "manifest.json").read_text())


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The address of an archive of the repository, with one top folder as GitHub's archives have."""
    folder = tmp_path_factory.mktemp("archive")
    with tarfile.open(folder / "selfsame.tar.gz", "w:gz") as archive:
        for name in ("__init__.py", "manifest.json", "fiftyone.yml", "requirements.txt"):
            archive.add(ROOT / name, f"selfsame-main/{name}")
        for name in PACKAGES:
            for path in (ROOT / name).rglob("*.py"):
                archive.add(path, f"selfsame-main/{path.relative_to(ROOT)}")
        if EMBEDDED_FOLDER.is_dir():
            archive.add(EMBEDDED_FOLDER, f"selfsame-main/{EMBEDDED_FOLDER.relative_to(ROOT)}")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/selfsame.tar.gz"
    server.shutdown()


@pytest.fixture(scope="module")
def registered(source):
    import fiftyone.zoo as foz

    foz.register_zoo_model_source(source, overwrite=True)
    yield source
    foz.delete_zoo_model_source(source)


def test_the_manifest_has_a_model_for_each_backbone():
    models = {model["base_name"]: model for model in _manifest()["models"]}
    assert list(models) == [zoo.PREFIX + info.name for info in list_backbones()]
    for info in list_backbones():
        model = models[zoo.PREFIX + info.name]
        assert model.get("source", "").removeprefix("https://huggingface.co/") == (info.hub_id or "")
        assert zoo.backbone_of(model["base_name"]) == info.name


def test_the_source_loads_as_a_top_level_module():
    # FiftyOne names the module after the folder; below a package that does not exist, relative imports would fail.
    assert _manifest()["name"].isidentifier()


def test_the_requirements_of_the_models_are_among_those_of_the_package():
    dependencies = (ROOT / "requirements.txt").read_text().splitlines()
    for model in _manifest()["models"]:
        assert set(model["requirements"]["packages"]) <= set(dependencies)


def test_a_registered_source_lists_its_models(registered):
    import fiftyone.zoo as foz

    assert len(foz.list_zoo_models(source=registered)) == len(_manifest()["models"])
    assert "selfsame/ffa-dinov2-small" in foz.list_zoo_models()


def test_a_zoo_model_loads_and_embeds_as_the_package_does(registered, fo_dataset, tmp_path):
    import fiftyone.zoo as foz
    from fiftyone_selfsame.fiftyone_plugin.model import FFAModel

    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    model = foz.load_zoo_model("selfsame/ffa-embedded", size=112, device="cpu")
    assert type(model).__module__ == "selfsame_curation.fiftyone_plugin.model"
    assert foz.is_zoo_model_downloaded("selfsame/ffa-embedded")
    found = fo_dataset([tmp_path / "a.png"]).compute_embeddings(model, num_workers=0)
    own = FFAModel.from_kwargs(model="embedded", size=112, device="cpu")
    np.testing.assert_allclose(found[0], own.embed(pixels), atol=1e-5)


def test_a_zoo_model_is_found_in_the_users_models_folder(registered, tmp_path, monkeypatch):
    import fiftyone.zoo as foz

    make_model_folder("dinov2", tmp_path / "dinov2-small")
    monkeypatch.setenv("SELFSAME_MODELS_DIR", str(tmp_path))
    _, path = foz.download_zoo_model("selfsame/ffa-dinov2-small")
    assert json.loads(Path(path).read_text())["weights"] == str(tmp_path / "dinov2-small")
    model = foz.load_zoo_model("selfsame/ffa-dinov2-small", size=56, device="cpu")
    assert model.embed(np.zeros((8, 8, 3), np.uint8)).ndim == 1
    foz.delete_zoo_model("selfsame/ffa-dinov2-small")
    assert not foz.is_zoo_model_downloaded("selfsame/ffa-dinov2-small")


def test_a_download_without_network_says_what_to_do(registered):
    import fiftyone.zoo as foz

    with pytest.raises(Exception, match=r"HF_HUB_OFFLINE.*selfsame|not on this machine"):
        foz.download_zoo_model("selfsame/ffa-dinov2-large")
    assert not foz.is_zoo_model_downloaded("selfsame/ffa-dinov2-large")


def test_a_failed_download_leaves_no_file_behind(tmp_path):
    with pytest.raises(ModelError):
        zoo.download_model("selfsame/ffa-dinov2-large", str(tmp_path / "ffa.json"))
    assert not (tmp_path / "ffa.json").exists()


@pytest.mark.parametrize("name", ["selfsame/ffa-dinov9", "dinov2-small", "other/ffa-dinov2-small"])
def test_unknown_models_are_named_with_those_there_are(name):
    with pytest.raises(ConfigError, match="selfsame/ffa-dinov2-small"):
        zoo.backbone_of(name)


def test_fiftyones_operators_can_ask_for_the_options_of_a_model(registered):
    import fiftyone.zoo as foz

    form = foz.get_zoo_model("selfsame/ffa-embedded").resolve_input(None).to_json()
    assert list(form["type"]["properties"]) == ["preset", "foreground"]
    assert "grabcut" in form["type"]["properties"]["foreground"]["type"]["values"]


def test_a_downloaded_plugin_works_without_the_package(source, tmp_path):
    code = (
        "import sys\n"
        "sys.modules['fiftyone_selfsame'] = None\n"
        "import fiftyone as fo, fiftyone.operators as foo, fiftyone.plugins as fop\n"
        "fop.download_plugin(sys.argv[1])\n"
        "fop.ensure_plugin_requirements('@selfsame/curation')\n"
        "fop.ensure_plugin_compatibility('@selfsame/curation')\n"
        "find = foo.get_operator('@selfsame/curation/find_exact_duplicates')\n"
        "dataset = fo.Dataset()\n"
        "dataset.add_samples([fo.Sample(filepath=path) for path in sys.argv[2:]])\n"
        "assert find(dataset).counts['groups'] == 1\n"
        "dataset.delete()\n"
    )
    pictures = [tmp_path / "a.png", tmp_path / "b.bmp"]
    for path in pictures:
        Image.new("RGB", (9, 7), "teal").save(path)
    arguments = [source, *map(str, pictures)]
    environment = {**os.environ, "FIFTYONE_PLUGINS_DIR": str(tmp_path / "plugins")}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "plugins" / "@selfsame" / "curation" / "fiftyone.yml").is_file()
