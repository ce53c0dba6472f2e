"""The folder of a trained matcher: ``config.json``, ``model.safetensors`` (or ``calibration.json``) and a card.

There are two kinds. ``"network"`` is a pair network. ``"logistic"`` is the training-free matcher with a calibration of
its scores that was fitted on somebody's pairs. Nothing in a folder is code, and no file is unpickled.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..backbones.folder import read_json, weights_digest
from ..backbones.loader import load_backbone
from ..errors import ConfigError, ModelError
from .calibration import Calibration
from .matcher_card import matcher_card
from .network_config import NetworkConfig

if TYPE_CHECKING:
    import torch

    from ..backbones.base import Backbone
    from .network import PairNetwork

Kind = Literal["network", "logistic"]

CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
# The last file to be written: a folder that has it is complete.
LAST_FILES: dict[Kind, str] = {"network": "model.safetensors", "logistic": "calibration.json"}

_FORMAT = "selfsame-matcher"
_VERSION = 1


@dataclass(frozen=True)
class MatcherFolder:
    """A trained matcher whose files are all there.

    Attributes:
        path: the folder.
        kind: what was trained.
        threshold: least score of a match, chosen on validation pairs.
        network: options of a pair network; None for ``"logistic"``.
        backbone_hash: of the frozen backbone on whose tokens a pair network was trained; None for other networks.
        free: ``"logistic"``: arguments of the training-free matcher whose scores were calibrated (``model``,
            ``saliency`` ...).
        facts: what is known of the training, JSON values by name.
    """

    path: Path
    kind: Kind
    threshold: float
    network: NetworkConfig | None = None
    backbone_hash: str | None = None
    free: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """Hexadecimal hash of all that a score depends on; cheap when repeated."""
        network = None if self.network is None else self.network.to_json()
        settings = json.dumps([self.kind, network, self.backbone_hash, dict(self.free)], sort_keys=True)
        parts = [settings, weights_digest(self.path / LAST_FILES[self.kind])]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def save_network(
    folder: Path, network: "PairNetwork", *, threshold: float, facts: Mapping[str, Any], card: str | None = None
) -> MatcherFolder:
    """Writes a pair network with weights in fp16; a matcher of the same folder is replaced.

    Args:
        folder: an existing or new folder; other files in it are left alone.
        network: the trained network.
        threshold: least score of a match.
        facts: what is known of the training, JSON values by name.
        card: text of ``README.md``; None writes one from the options and the facts.
    """
    from safetensors.torch import save_file

    backbone = getattr(network.encoder, "backbone", None)
    saved = MatcherFolder(
        folder,
        "network",
        threshold,
        network=network.config,
        backbone_hash=None if backbone is None else backbone.weights_hash,
        facts=facts,
    )
    _write_all_but_last(saved, card)
    weights = {name: _halved(value) for name, value in network.state_dict().items()}
    aside = folder / f"{LAST_FILES['network']}.part"
    save_file(weights, aside, metadata={"format": "pt"})
    os.replace(aside, folder / LAST_FILES["network"])
    return saved


def save_logistic(
    folder: Path,
    calibration: Calibration,
    *,
    free: Mapping[str, Any],
    facts: Mapping[str, Any],
    card: str | None = None,
) -> MatcherFolder:
    """Writes a calibration of the training-free scores; a matcher of the same folder is replaced.

    Args:
        folder: an existing or new folder; other files in it are left alone.
        calibration: the fitted logistic.
        free: arguments of :func:`.loader.load_pair_matcher` that made the scores, such as ``model`` and ``saliency``.
        facts: what is known of the fit, JSON values by name.
        card: as in :func:`save_network`.
    """
    saved = MatcherFolder(folder, "logistic", calibration.threshold, free=free, facts=facts)
    _write_all_but_last(saved, card)
    aside = folder / f"{LAST_FILES['logistic']}.part"
    calibration.save(aside)
    os.replace(aside, folder / LAST_FILES["logistic"])
    return saved


def open_matcher_folder(path: Path) -> MatcherFolder:
    """Looks at a folder without loading weights.

    Raises:
        ModelError: it is no complete folder of a matcher, or one of a newer version.
    """
    if not (path / CONFIG_FILE).is_file():
        raise ModelError(f"{path}: no {CONFIG_FILE} in this folder; give the folder of a trained matcher")
    config = read_json(path / CONFIG_FILE)
    if config.get("format") != _FORMAT or config.get("version") != _VERSION or config.get("kind") not in LAST_FILES:
        raise ModelError(
            f"{path}: not a matcher of this version of Selfsame ({CONFIG_FILE} says format={config.get('format')!r},"
            f" version={config.get('version')!r}, kind={config.get('kind')!r}); train it again"
        )
    found = _parsed(path, config)
    last = path / LAST_FILES[found.kind]
    if not last.is_file():
        raise ModelError(f"{last}: file is missing; finish the training of this matcher, or copy the folder again")
    return found


def load_network(folder: MatcherFolder, backbone: "Backbone | None" = None) -> "PairNetwork":
    """The pair network of a folder with float32 weights, on the CPU, in eval mode.

    Args:
        folder: an opened folder of kind ``"network"``.
        backbone: the frozen backbone of a network of tokens; None loads the one that its options name.

    Raises:
        ModelError: the weights are broken or incomplete, or the backbone is not the one of the training.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from .network import PairNetwork

    if folder.network is None:
        raise ModelError(f"{folder.path}: a matcher of kind {folder.kind!r} has no network")
    if folder.network.encoder == "tokens":
        backbone = load_backbone(str(folder.network.backbone)) if backbone is None else backbone
        _check_backbone(folder, backbone)
    network = PairNetwork(folder.network, backbone=backbone, pretrained=False)
    path = folder.path / LAST_FILES["network"]
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{path}: the weights cannot be loaded ({reason}); copy or train the matcher again") from error
    return network.eval()


def _check_backbone(folder: MatcherFolder, backbone: "Backbone") -> None:
    if backbone.weights_hash != folder.backbone_hash:
        raise ModelError(
            f"{folder.path}: trained on tokens of another {backbone.name!r} than the one of this machine, so its"
            " answers would mean nothing; train it again, or use the model it was trained with"
        )


def _halved(value: "torch.Tensor") -> "torch.Tensor":
    value = value.detach().cpu()
    return (value.half() if value.is_floating_point() else value).contiguous()


def _write_all_but_last(saved: MatcherFolder, card: str | None) -> None:
    """Takes away what makes the folder complete, and writes the rest."""
    saved.path.mkdir(parents=True, exist_ok=True)
    for last in LAST_FILES.values():
        (saved.path / last).unlink(missing_ok=True)
    config = {
        "format": _FORMAT,
        "version": _VERSION,
        "kind": saved.kind,
        "threshold": saved.threshold,
        "network": None if saved.network is None else saved.network.to_json(),
        "backbone_hash": saved.backbone_hash,
        "free": dict(saved.free),
        "facts": dict(saved.facts),
    }
    (saved.path / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    text = matcher_card(saved.path.name, config) if card is None else card
    (saved.path / CARD_FILE).write_text(text, encoding="utf-8")


def _parsed(path: Path, config: Mapping[str, Any]) -> MatcherFolder:
    try:
        network = config["network"]
        return MatcherFolder(
            path,
            config["kind"],
            float(config["threshold"]),
            network=None if network is None else NetworkConfig.from_json(network),
            backbone_hash=config["backbone_hash"],
            free=dict(config["free"]),
            facts=dict(config["facts"]),
        )
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ModelError(f"{path / CONFIG_FILE}: broken file ({error}); copy or train the matcher again") from error
