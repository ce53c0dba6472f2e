"""Set-up: the lock file, the script behind `make setup`, and the targets of the Makefile."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent


def load_set_up():
    """The set-up script as a module; it is no part of the package, because it runs before there is one."""
    spec = importlib.util.spec_from_file_location("selfsame_set_up", ROOT / ".ci" / "set_up.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def set_up():
    return load_set_up()


def locked_requirements() -> list[Requirement]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_lock_pins_every_package_to_one_version_and_nothing_to_an_address():
    requirements = locked_requirements()

    assert len(requirements) > 100
    assert all([s.operator for s in r.specifier] == ["=="] and r.url is None for r in requirements)


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_the_lock_satisfies_every_dependency_on_every_python(python):
    environment = {**default_environment(), "python_version": python, "python_full_version": f"{python}.1"}
    versions = {
        requirement.name: next(iter(requirement.specifier)).version
        for requirement in locked_requirements()
        if requirement.marker is None or requirement.marker.evaluate(environment)
    }
    extras = project()["optional-dependencies"]
    wanted = [Requirement(text) for text in [*project()["dependencies"], *extras["dev"], *extras["bench"]]]

    unmet = [
        str(requirement)
        for requirement in wanted
        if (requirement.marker is None or requirement.marker.evaluate(environment))
        and not requirement.specifier.contains(versions.get(requirement.name.lower(), "0"))
    ]

    assert unmet == []


def test_both_opencv_packages_are_locked_to_one_version_below_5(set_up):
    plain, headless = set_up.locked("opencv-python"), set_up.locked("opencv-python-headless")

    assert plain.split("==")[1] == headless.split("==")[1]
    assert int(plain.split("==")[1].split(".")[0]) < 5


def test_a_package_that_the_lock_does_not_pin_is_refused_by_name(set_up):
    with pytest.raises(set_up.SetUpError, match="does not pin no-such-package"):
        set_up.locked("no-such-package")


def test_an_old_python_is_told_to_bring_a_newer_one(set_up, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))

    with pytest.raises(set_up.SetUpError, match=r"3\.10 or newer is needed, this is 3\.9"):
        set_up.set_up(tmp_path)


def test_a_finished_set_up_is_not_repeated_until_the_lock_changes(set_up, monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(set_up, "make_venv", lambda venv: made.append(venv) or pytest.fail("would install again"))
    (tmp_path / "selfsame-setup").write_text(set_up.fingerprint())
    set_up.set_up(tmp_path)
    assert made == []

    lock = tmp_path / "changed.lock"
    lock.write_text("numpy==2.0.0\n")
    monkeypatch.setattr(set_up, "LOCK", lock)
    with pytest.raises(pytest.fail.Exception):
        set_up.set_up(tmp_path)
    assert made == [tmp_path]


def test_something_else_in_place_of_pips_wheel_is_not_installed(set_up, monkeypatch, tmp_path):
    fake = tmp_path / "pip-26.3-py3-none-any.whl"
    fake.write_bytes(b"not pip")
    monkeypatch.setattr(set_up, "PIP_WHEEL", fake.as_uri())

    with pytest.raises(set_up.SetUpError, match="not pip's wheel; install python3-venv"):
        set_up.download_pip(tmp_path / "venv")


def test_a_database_server_that_does_not_start_is_explained_with_the_package_to_install(set_up, monkeypatch, tmp_path):
    mongod = tmp_path / "mongod"
    mongod.write_text("#!/bin/sh\necho 'libcurl.so.4: cannot open shared object file' >&2\nexit 127\n")
    mongod.chmod(0o755)
    monkeypatch.setattr(set_up, "find_mongod", lambda python: mongod)
    monkeypatch.setattr(set_up.os, "geteuid", lambda: 1000)

    with pytest.raises(set_up.SetUpError, match=r"libcurl\.so\.4(.|\n)*apt-get install -y libcurl4"):
        set_up.check_mongod(Path(sys.executable))


def test_a_missing_database_server_is_explained_with_the_way_to_bring_ones_own(set_up, monkeypatch):
    monkeypatch.setattr(set_up, "find_mongod", lambda python: None)

    with pytest.raises(set_up.SetUpError, match="FIFTYONE_DATABASE_URI=mongodb://localhost:27017"):
        set_up.check_mongod(Path(sys.executable))


def test_the_database_server_of_this_environment_is_found_and_runs(set_up):
    mongod = set_up.find_mongod(Path(sys.executable))

    assert mongod is not None
    assert set_up.mongod_problem(mongod) == ""


def test_every_target_of_the_makefile_explains_itself_in_make_help():
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE).group(1).split())
    documented = set(re.findall(r"^([a-z-]+):[^=\n]*## \S", makefile, re.MULTILINE))

    assert documented == phony
    assert {"setup", "demo", "app", "test", "test-slow", "bench", "gpu", "lint", "lock"} <= phony
