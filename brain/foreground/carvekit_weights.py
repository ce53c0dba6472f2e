"""Where CarveKit's weights come from, and how they are loaded without running what a file may contain."""

import contextlib
import os
import pickle
import random
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from ..backbones.hub import is_offline
from ..errors import ModelError
from ..paths import models_dir

# What one file may lack of a network that CarveKit itself loads leniently.
_TOLERATED_MISSING = 0.05


def find_weights(file: str, model_dir: str | os.PathLike | None = None) -> Path:
    """The weight file of a network, from the first place that has it.

    Looked at in this order: ``model_dir`` and nothing else, where it is given; ``$SELFSAME_MODELS_DIR/carvekit``;
    CarveKit's own cache; CarveKit's download into that cache. In a folder, the file may lie directly or in the
    sub-folder that CarveKit would make.

    Args:
        file: CarveKit's name of the file, such as ``"tracer_b7.pth"``.
        model_dir: a folder of weight files.

    Raises:
        ModelError: it is nowhere; the message says what to download and where to put it.
    """
    from carvekit.utils.download_models import MODELS_URLS

    source = MODELS_URLS[file]
    kept = models_dir()
    folder = Path(model_dir).expanduser() if model_dir is not None else kept / "carvekit" if kept else None
    if folder is not None:
        for candidate in (folder / file, folder / source["repository"].split("/")[1] / file):
            if candidate.is_file():
                return candidate.absolute()
    where = f"https://huggingface.co/{source['repository']}/resolve/{source['revision']}/{source['filename']}"
    place = folder or "$SELFSAME_MODELS_DIR/carvekit (a folder of your choice)"
    advice = f"download {where} and save it as {file} in {place}; or use foreground='one_pass' or 'grabcut'"
    if model_dir is not None:
        raise ModelError(f"CarveKit's {file} is not in {folder}; {advice}")
    return _cached_or_downloaded(file, advice)


def _cached_or_downloaded(file: str, advice: str) -> Path:
    """The file in CarveKit's cache, checked against the checksum that CarveKit publishes."""
    from carvekit.utils.download_models import downloader

    # CarveKit reports what it tries by warnings; what matters to the user is said below.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cached = downloader.check_for_existence(file)
        if cached is not None:
            return cached
        if is_offline():
            raise ModelError(
                f"CarveKit's {file} is not on this machine, and HF_HUB_OFFLINE forbids the download; unset it, or"
                f" {advice}"
            )
        try:
            downloader.download_model(file)
        except OSError as error:
            raise ModelError(f"CarveKit's {file} could not be downloaded ({error}); {advice}") from error
        path = downloader.check_for_existence(file)
    if path is None:
        raise ModelError(f"CarveKit's {file} arrived damaged (wrong checksum); try again, or {advice}")
    return path


def load_weights(network: nn.Module, path: Path, *, lenient: bool = False) -> None:
    """Fills a network from a ``.pth`` file of tensors; anything else in the file is refused, never executed.

    Args:
        network: the network, on any device.
        path: the file.
        lenient: whether the file may hold more tensors than the network, and lack a few.

    Raises:
        ModelError: the file is damaged, holds other things than tensors, or belongs to another network.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # PyTorch's own words advise to load the file all the same, which would run whatever it holds.
        raise ModelError(f"{path}: holds something else than weights, or is damaged; download it again") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path}: damaged or not a file of weights; delete it and download it again") from error
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: weights of another network ({error}); put the right file there") from error
    # A lenient load of a wholly different network would succeed and leave random weights.
    most_missing = _TOLERATED_MISSING * len(network.state_dict()) if lenient else 0
    if len(missing) > most_missing or (unexpected and not lenient):
        example = (list(missing) or list(unexpected))[0]
        raise ModelError(
            f"{path}: weights of another network ({len(missing)} tensors missing, {len(unexpected)} unknown, such as"
            f" {example!r}); put the right file there"
        )


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keeps CarveKit's side effects out of the program.

    Its import reseeds the global random generators and makes cuDNN deterministic; building its networks draws random
    numbers and warns of deprecated arguments.
    """
    state = random.getstate()
    cudnn = torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(state)
        cudnn.deterministic, cudnn.benchmark = flags
