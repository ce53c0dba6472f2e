"""`load_pair_matcher`: from a name to a matcher, kept in memory for the next call."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..backbones.base import Backbone
from ..backbones.default import default_backbone_name
from ..backbones.device import Precision, resolve_device, resolve_precision
from ..backbones.encoder import Placement
from ..backbones.loader import load_backbone, remember
from ..errors import ConfigError
from .calibration import Calibration
from .comparison import PairMatcher
from .free_matcher import MatchPreset, TrainingFreeMatcher, match_preset
from .matcher_folder import LAST_FILES, MatcherFolder, load_network
from .names import FREE_MATCHERS, TRAINING_FREE, TRAINING_FREE_PAPER
from .registry import find_matcher_folder
from .trained_matcher import TrainedMatcher


def load_pair_matcher(
    matcher: str | os.PathLike = TRAINING_FREE,
    *,
    model: str | os.PathLike | None = None,
    saliency: str | None = None,
    refine: bool | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> PairMatcher:
    """Loads a matcher; its weights stay in memory for the next call.

    Args:
        matcher: ``"training_free"``, ``"training_free_paper"`` (joint clusters), a name of
            :func:`.registry.list_matchers`, or the folder of a trained matcher.
        model: the backbone of the training-free matcher; None takes the best at hand, or the one with which a matcher
            was calibrated. A trained network has its own.
        saliency: what stands out in an image for the training-free matcher, see :class:`.free_matcher.FreeConfig`;
            None or ``"auto"`` for the default, or the one with which a matcher was calibrated.
        refine: whether GrabCut gives masks the edges of the picture; None for the matcher's own choice.
        device: ``"auto"`` (CUDA, else MPS, else CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        precision: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.

    Raises:
        ConfigError: an argument names something that does not exist, or does not go with the matcher.
        ModelError: a model cannot be found, downloaded or read; the message says what to do.
    """
    name = os.fspath(matcher)
    saliency = None if saliency == "auto" else saliency
    if name in FREE_MATCHERS:
        options = {"model": model, "saliency": saliency, "refine": refine}
        preset: MatchPreset = "paper" if name == TRAINING_FREE_PAPER else "default"
        return _training_free(options, device, precision, preset=preset)
    for option, value in (("model", model), ("saliency", saliency)):
        if value is not None:
            raise ConfigError(f"{option}={value!r} is for matcher={TRAINING_FREE!r}; {name!r} has its own")
    folder = find_matcher_folder(name)
    if folder.kind == "network":
        return _trained(name, folder, refine is not False, device, precision)
    options = dict(folder.free) if refine is None else {**folder.free, "refine": refine}
    calibrated = _training_free(options, device, precision, Calibration.load(folder.path / LAST_FILES["logistic"]))
    calibrated.name = name
    return calibrated


def _training_free(
    options: Mapping[str, Any],
    device: str,
    precision: Precision,
    calibration: Calibration | None = None,
    preset: MatchPreset = "default",
) -> TrainingFreeMatcher:
    """Those of ``options`` that are None or missing take their defaults."""
    given = {name: value for name, value in options.items() if value is not None}
    backbone = load_backbone(given.pop("model", None) or default_backbone_name(), device=device, precision=precision)
    config = match_preset(preset, backbone, given.pop("saliency", None))
    return TrainingFreeMatcher(backbone, replace(config, **given), calibration)


def _trained(name: str, folder: MatcherFolder, refine: bool, device: str, precision: Precision) -> TrainedMatcher:
    resolved = resolve_device(device)
    placement = Placement(resolved, resolve_precision(precision, resolved))
    config = folder.network
    backbone: Backbone | None = None
    if config is not None and config.encoder == "tokens":
        # Before the network, since only one model is loaded at a time.
        backbone = load_backbone(str(config.backbone), device=device, precision=precision)
    digest = folder.digest()
    network = remember(
        ("matcher", digest, placement), lambda: load_network(folder, backbone).to(resolved).requires_grad_(False)
    )
    return TrainedMatcher(
        network, name=name, digest=digest, threshold=folder.threshold, placement=placement, refine=refine
    )
