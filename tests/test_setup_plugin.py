"""`fiftyone plugins download` of an archive of this repository gives a plugin that works without the package."""

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = "@selfsame/curation"

# Python runs this at start-up in every process that has its folder on PYTHONPATH.
WITHOUT_THE_PACKAGE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "fiftyone_selfsame":
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)

sys.meta_path.insert(0, Refuse())
"""

USE_THE_PLUGIN = """
import json, sys
import fiftyone as fo
import fiftyone.operators as foo

dataset = fo.Dataset.from_images(sys.argv[1:], progress=False)
compute = foo.get_operator("@selfsame/curation/compute_ffa")
find = foo.get_operator("@selfsame/curation/find_exact_duplicates")
compute(dataset, model="embedded-untrained", size=56, progress=False)
find(dataset, progress=False)
print(json.dumps({
    "operators": sorted(o.name for o in foo.list_operators() if o.plugin_name == "@selfsame/curation"),
    "vectors": [list(vector.shape) for vector in dataset.values("ffa")],
    "groups": dataset.values("exact_group"),
    "modules": sorted({type(compute).__module__, type(find).__module__}),
}))
"""


@pytest.fixture(scope="module")
def archive_address(tmp_path_factory):
    """The repository's files as GitHub would pack them, served on this machine."""
    folder = tmp_path_factory.mktemp("archive")
    with zipfile.ZipFile(folder / "selfsame.zip", "w") as archive:
        for where, folders, names in os.walk(ROOT):
            folders[:] = [
                name for name in folders if not name.startswith((".", "__")) and not name.endswith(".egg-info")
            ]
            for name in names:
                path = Path(where, name)
                archive.write(path, Path("selfsame-main", path.relative_to(ROOT)))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/selfsame.zip"
    server.shutdown()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The environment of a FiftyOne that has never heard of this package, with a plugins folder of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "sitecustomize.py").write_text(WITHOUT_THE_PACKAGE)
    return {**os.environ, "PYTHONPATH": str(folder), "FIFTYONE_PLUGINS_DIR": str(folder / "plugins")}


def python(*arguments: str, env: dict, cwd: Path) -> str:
    result = subprocess.run(
        [sys.executable, *arguments], env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert result.returncode == 0, f"{arguments[:4]}:\n{result.stdout}\n{result.stderr}"
    return result.stdout


def fiftyone_plugins(*arguments: str, env: dict, cwd: Path) -> str:
    return python("-c", "from fiftyone.core.cli import main; main()", "plugins", *arguments, env=env, cwd=cwd)


def test_a_downloaded_plugin_works_without_the_package(archive_address, elsewhere, tmp_path):
    Image.effect_noise((90, 70), 60).convert("RGB").save(tmp_path / "a.png")
    Image.open(tmp_path / "a.png").save(tmp_path / "b.bmp")
    Image.new("RGB", (80, 80), (200, 30, 30)).save(tmp_path / "c.png")

    fiftyone_plugins("download", archive_address, env=elsewhere, cwd=tmp_path)
    images = [str(tmp_path / name) for name in ("a.png", "b.bmp", "c.png")]
    used = json.loads(python("-c", USE_THE_PLUGIN, *images, env=elsewhere, cwd=tmp_path).splitlines()[-1])

    declared = yaml.safe_load((ROOT / "fiftyone.yml").read_text())
    # To FiftyOne, a panel is an operator as well.
    assert used["operators"] == sorted(declared["operators"] + declared["panels"])
    assert len(used["vectors"]) == 3
    assert all(len(shape) == 1 for shape in used["vectors"])
    assert used["groups"][0] == used["groups"][1] != used["groups"][2]
    assert all(module.startswith("fiftyone.plugins.") for module in used["modules"])


def test_the_requirements_of_a_downloaded_plugin_are_those_of_the_package(archive_address, elsewhere, tmp_path):
    fiftyone_plugins("download", archive_address, "--overwrite", env=elsewhere, cwd=tmp_path)
    printed = fiftyone_plugins("requirements", PLUGIN, "--print", env=elsewhere, cwd=tmp_path)
    fiftyone_plugins("requirements", PLUGIN, "--ensure", env=elsewhere, cwd=tmp_path)

    named = {Requirement(line).name for line in printed.splitlines() if line and not line.startswith("#")}
    assert {"torch", "transformers", "fiftyone", "umap-learn"} <= named
