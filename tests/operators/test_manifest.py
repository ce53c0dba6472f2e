"""What fiftyone.yml, requirements.txt and manifest.json declare is what there is."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = "@selfsame/curation"


def _declared():
    return yaml.safe_load((ROOT / "fiftyone.yml").read_text())


def _project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


class _Recorder:
    def __init__(self):
        self.names = []

    def register(self, operator):
        self.names.append(operator().config.name)


def test_fiftyone_yml_declares_exactly_the_operators_that_the_package_registers():
    import fiftyone_selfsame

    recorder = _Recorder()
    fiftyone_selfsame.register(recorder)
    declared = _declared()
    assert sorted(recorder.names) == sorted(declared["operators"] + declared.get("panels", []))
    assert len(set(recorder.names)) == len(recorder.names)


def test_fiftyone_loads_every_declared_operator_and_panel_without_an_error():
    import fiftyone.operators as foo
    from fiftyone.operators.registry import OperatorRegistry

    registry = OperatorRegistry()
    for kind in ("operator", "panel"):
        loaded = [found.name for found in registry.list_operators(type=kind) if found.plugin_name == PLUGIN]
        assert sorted(loaded) == sorted(_declared()[f"{kind}s"])
    assert not [error for error in registry.list_errors() if "selfsame" in str(error)]
    assert foo.get_operator(f"{PLUGIN}/compute_ffa").uri == f"{PLUGIN}/compute_ffa"


def test_a_plugin_that_links_to_the_installed_package_shares_its_modules_and_errors(operator, dataset):
    from fiftyone_selfsame.brain.errors import ConfigError
    from fiftyone_selfsame.operators import OPERATORS

    assert type(operator("compute_ffa")) in OPERATORS
    with pytest.raises(ConfigError, match="field name"):
        operator("compute_ffa")(dataset, field="not a name")


def test_each_operator_is_named_after_a_plain_function_and_offers_its_arguments():
    import inspect

    import fiftyone_selfsame
    from fiftyone_selfsame.operators import OPERATORS

    for cls in OPERATORS:
        function = getattr(fiftyone_selfsame, cls().config.name)
        arguments = set(inspect.signature(function).parameters)
        # Where files go is not for a user of the App to say, and the App has its own progress bar.
        assert set(cls.options) == arguments - {"samples", "mask_dir", "path", "progress"}, cls


def test_version_and_licence_are_those_of_the_package():
    declared, project = _declared(), _project()
    assert (declared["version"], declared["license"]) == (project["version"], project["license"])
    needed = next(line for line in project["dependencies"] if line.startswith("fiftyone>"))
    assert declared["fiftyone"]["version"].split(",")[0] == needed.removeprefix("fiftyone")


def test_plugin_requirements_are_the_dependencies_of_the_package_without_those_that_touch_opencv():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    requirements = [line for line in lines if line and not line.startswith("#")]
    # CarveKit's opencv-python would replace the OpenCV that FiftyOne imports by one that needs display libraries.
    left_out = [line for line in _project()["dependencies"] if line.startswith(("carvekit", "opencv"))]
    assert sorted([*requirements, *left_out]) == sorted(_project()["dependencies"])
    assert len(left_out) == 3


def test_registering_the_plugin_loads_no_heavy_library_into_the_server():
    # The App's server registers all plugins whenever somebody opens a page.
    code = (
        "import sys, fiftyone, fiftyone_selfsame\n"
        "before = set(sys.modules)\n"
        "fiftyone_selfsame.register(type('P', (), {'register': lambda self, operator: operator().config})())\n"
        "new = set(sys.modules) - before\n"
        "packages = {name.split('.')[0] for name in new}\n"
        "sys.exit(' '.join(packages & {'torch', 'transformers', 'scipy', 'sklearn', 'carvekit', 'cv2'}) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
