"""Training of pair networks in two steps, resumable at any point.

Step 1 trains the encoder and the co-salient heads on the masks of matching pairs. Step 2 trains everything on all
pairs: the decision on each, the masks on matching ones only, since nobody can say what pairs have in common that do
not match. Regions of matching pairs are selected by the true masks with a probability that falls to 0.

Source: "Unstructured Object Matching using Co-Salient Region Segmentation" (SCOTT), the section on training; the
paper leaves optimiser, rates, batches, augmentation and the use of true masks open.
"""

import hashlib
import json
import math
import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ..backbones.base import Backbone
from ..backbones.device import Precision, resolve_device, resolve_precision
from ..backbones.encoder import Placement
from ..errors import ConfigError
from ..metrics.decisions import average_precision, best_f1_threshold, decision_figures
from .matcher_folder import save_network
from .network import Cosalient, NetworkOutput, PairNetwork
from .network_config import NetworkConfig
from .pair_data import PairExample
from .training_batches import Batch, PairPictures

CHECKPOINT = "checkpoint.pt"

SEGMENT, MATCH = "segment", "match"
ENCODING = "encoding"

# Weights that were trained by others change ten times more slowly.
_PRETRAINED_RATE = 0.1


@dataclass(frozen=True)
class TrainingConfig:
    """How a pair network is trained.

    Attributes:
        segment_steps, match_steps: batches of either step.
        batch_size: pairs per batch, half of them matching in step 2.
        learning_rate, weight_decay: of AdamW; the rate falls as a half cosine within each step.
        validate_every: batches of step 2 between validations.
        patience: validations without a better F1 after which step 2 ends; None never ends it early.
        checkpoint_every: batches between checkpoints.
        true_mask_share: probability at the beginning of step 2 that true masks select the regions; it falls to 0.
        seed: of everything left to chance.
    """

    segment_steps: int = 300
    match_steps: int = 600
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    validate_every: int = 50
    patience: int | None = 6
    checkpoint_every: int = 100
    true_mask_share: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("match_steps", "batch_size", "validate_every", "checkpoint_every"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)!r} must be a whole number above 0")
        if self.batch_size < 2:
            raise ConfigError(f"batch_size={self.batch_size} must be at least 2: a batch holds pairs of both answers")
        if self.segment_steps < 0 or not 0 <= self.true_mask_share <= 1 or self.learning_rate <= 0:
            raise ConfigError("segment_steps and learning_rate must not be negative, true_mask_share lies in [0, 1]")


@dataclass(frozen=True)
class TrainingProgress:
    """Where training is.

    Attributes:
        stage: ``"encoding"``, ``"segment"`` or ``"match"``.
        step, steps: batches done, and of the whole training; of ``"encoding"``, pictures.
        loss: of the last batch.
        figures: of the last validation: ``f1``, ``average_precision``, ``threshold`` and perhaps ``iou``.
    """

    stage: str
    step: int
    steps: int
    loss: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingReport:
    """What came of a training.

    Attributes:
        folder: of the matcher.
        threshold: least score of a match, chosen on the validation pairs.
        figures: of the validation pairs, with the weights that were kept.
        history: an entry per batch: ``step``, ``stage``, ``loss``, and after a validation its figures.
        steps: batches that were trained.
    """

    folder: Path
    threshold: float
    figures: Mapping[str, float]
    history: list[dict[str, Any]]
    steps: int


def train_pair_network(
    train: Sequence[PairExample],
    validation: Sequence[PairExample],
    network: NetworkConfig,
    config: TrainingConfig | None = None,
    *,
    folder: Path,
    name: str,
    facts: Mapping[str, Any] | None = None,
    resume: bool = True,
    device: str = "auto",
    precision: Precision = "auto",
    backbone: Backbone | None = None,
) -> Generator[TrainingProgress, None, TrainingReport]:
    """Trains a pair network and writes the folder of a matcher.

    A training that was killed goes on from its last checkpoint when the same is asked for again; the weights that come
    out are the same, bit by bit, as if it had never been stopped, on one kind of device and number of threads.

    Args:
        train, validation: labelled pairs, see :func:`.pair_data.split_pairs`; both need both answers.
        network: what to train.
        config: how; None takes the defaults.
        folder: of the matcher; a finished one is replaced at the end.
        name: of the matcher, for its card.
        facts: what is known of the pairs, for its card; JSON values by name.
        resume: whether to go on from a checkpoint in ``folder``.
        device, precision: where and in which number format; mixed precision keeps weights in float32.
        backbone: the frozen backbone of ``encoder="tokens"``; None loads the one that ``network`` names.

    Raises:
        ConfigError: a half lacks one of the answers.
        ImageError: a picture or mask cannot be read.
    """
    config = config or TrainingConfig()
    for half, pairs in (("train", train), ("validation", validation)):
        if len({one.match for one in pairs}) < 2:
            raise ConfigError(f"{half}: both matching and other pairs are needed; label some of each")
    placed = resolve_device(device)
    placement = Placement(placed, resolve_precision(precision, placed))
    torch.manual_seed(config.seed)
    model = PairNetwork(network, backbone=backbone).to(placed)
    folder.mkdir(parents=True, exist_ok=True)
    trainer = _Trainer(model, config, placement, list(train), list(validation))
    checkpoint = folder / CHECKPOINT
    if resume:
        trainer.restore(checkpoint)
    yield from trainer.encode()
    yield from trainer.run(checkpoint)
    figures = trainer.finish()
    known = {
        **(facts or {}),
        "training pairs": len(train),
        "validation pairs": len(validation),
        "batches": trainer.step,
        "seed": config.seed,
        **{f"validation {key}": value for key, value in figures.items()},
    }
    save_network(folder, model, threshold=figures["threshold"], facts={"name": name, **known})
    checkpoint.unlink(missing_ok=True)
    return TrainingReport(folder, figures["threshold"], figures, trainer.history, trainer.step)


class _Trainer:
    """The state of a training: weights, optimiser and number of batches; all chance follows from the last."""

    def __init__(
        self,
        model: PairNetwork,
        config: TrainingConfig,
        placement: Placement,
        train: list[PairExample],
        validation: list[PairExample],
    ) -> None:
        self.model, self.config, self.placement = model, config, placement
        self.train, self.validation = train, validation
        self.pictures = PairPictures(model, placement)
        self.masked = [one for one in train if one.match and one.mask_a and one.mask_b]
        self.segment_steps = config.segment_steps if self.masked else 0
        self.total = self.segment_steps + config.match_steps
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.figures: dict[str, float] = {}
        self.best: dict[str, Any] | None = None
        self.stale = 0
        self.optimiser = torch.optim.AdamW(_parameter_groups(model, config), weight_decay=config.weight_decay)
        self.scaler = torch.amp.GradScaler(placement.device.type, enabled=placement.dtype == torch.float16)

    def encode(self) -> Generator[TrainingProgress, None, None]:
        """Reads, and for a frozen encoder encodes, all pictures."""
        paths = list(dict.fromkeys(p for one in (*self.train, *self.validation) for p in (one.path_a, one.path_b)))
        for start in range(0, len(paths), 64):
            self.pictures.encode(paths[start : start + 64])
            yield TrainingProgress(ENCODING, min(start + 64, len(paths)), len(paths))

    def run(self, checkpoint: Path) -> Generator[TrainingProgress, None, None]:
        """Trains to the end, or until nothing gets better."""
        patience = self.config.patience
        while self.step < self.total and (patience is None or self.stale < patience):
            stage = SEGMENT if self.step < self.segment_steps else MATCH
            loss = self._train_step(stage)
            self.step += 1
            entry: dict[str, Any] = {"step": self.step, "stage": stage, "loss": loss}
            matched = self.step - self.segment_steps
            if stage == MATCH and (matched % self.config.validate_every == 0 or self.step == self.total):
                self._validate()
                entry |= self.figures
            self.history.append(entry)
            if self.step % self.config.checkpoint_every == 0:
                self._save(checkpoint)
            yield TrainingProgress(stage, self.step, self.total, loss, self.figures)

    def finish(self) -> dict[str, float]:
        """Takes the best weights; their figures."""
        assert self.best is not None
        self.model.load_state_dict(self.best["weights"])
        return dict(self.best["figures"])

    def restore(self, checkpoint: Path) -> None:
        """Goes on from a checkpoint of the same training; any other is ignored."""
        if not checkpoint.is_file():
            return
        state = torch.load(checkpoint, map_location=self.placement.device, weights_only=True)
        if state["identity"] != self._identity():
            return
        self.model.load_state_dict(state["weights"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.history, self.figures = state["step"], state["history"], state["figures"]
        self.best, self.stale = state["best"], state["stale"]

    def _save(self, checkpoint: Path) -> None:
        state = {
            "identity": self._identity(),
            "weights": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "history": self.history,
            "figures": self.figures,
            "best": self.best,
            "stale": self.stale,
        }
        aside = checkpoint.with_suffix(".part")
        torch.save(state, aside)
        os.replace(aside, checkpoint)

    def _identity(self) -> str:
        """Hash of all that the weights depend on."""
        parts = [self.model.config.to_json(), asdict(self.config), str(self.placement.dtype)]
        pairs = [asdict(one) for one in (*self.train, *self.validation)]
        return hashlib.sha256(json.dumps([*parts, pairs], sort_keys=True).encode()).hexdigest()

    def _train_step(self, stage: str) -> float:
        self.model.train()
        rng = np.random.default_rng([self.config.seed, self.step])
        self._set_rate(stage)
        with torch.autocast(
            self.placement.device.type, self.placement.dtype, enabled=self.placement.dtype != torch.float32
        ):
            batch = self.pictures.batch(self._choose(stage, rng), rng)
            found = self.model.segment(batch.inputs_a, batch.inputs_b)
            loss = segmentation_loss(found, batch)
            if stage == MATCH:
                loss = loss + decision_loss(self._decide(found, batch, rng), batch)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return float(loss.detach())

    def _choose(self, stage: str, rng: np.random.Generator) -> list[PairExample]:
        size = self.config.batch_size
        if stage == SEGMENT:
            return [self.masked[i] for i in rng.integers(len(self.masked), size=size)]
        sides = [[one for one in self.train if one.match is answer] for answer in (True, False)]
        shares = ((size + 1) // 2, size // 2)
        return [side[i] for side, n in zip(sides, shares, strict=True) for i in rng.integers(len(side), size=n)]

    def _decide(self, found: Cosalient, batch: Batch, rng: np.random.Generator) -> NetworkOutput:
        done = (self.step - self.segment_steps) / self.config.match_steps
        chance = self.config.true_mask_share * (1 - done)
        true = torch.from_numpy(rng.random(len(batch.match)) < chance).to(batch.masked.device) & batch.masked
        return self.model.decide(found, *regions(found, batch, true))

    def _set_rate(self, stage: str) -> None:
        start, steps = (0, self.segment_steps) if stage == SEGMENT else (self.segment_steps, self.config.match_steps)
        share = 0.5 * (1 + math.cos(math.pi * (self.step - start) / steps))
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * group["scale"] * share

    def _validate(self) -> None:
        self.figures = validation_figures(self.model, self.pictures, self.validation, self.config.batch_size)
        rank = (self.figures["f1"], self.figures["average_precision"])
        if self.best is not None and rank <= tuple(self.best["rank"]):
            self.stale += 1
            return
        weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.best, self.stale = {"rank": list(rank), "figures": self.figures, "weights": weights}, 0


def regions(found: Cosalient, batch: Batch, true: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The masks that select regions: the true ones where ``true`` says so, else the predicted, without gradient."""
    pairs = ((batch.masks_a, found.mask_logits_a), (batch.masks_b, found.mask_logits_b))
    a, b = (torch.where(true[:, None, None], known, logits.detach().float().sigmoid()) for known, logits in pairs)
    return a, b


def segmentation_loss(found: Cosalient, batch: Batch) -> torch.Tensor:
    """Cross-entropy of both masks against the coverage of each cell, over the pairs whose masks are known.

    All others have no part in it, so that they give no gradient to the co-salient heads.
    """
    if not batch.masked.any():
        return found.mask_logits_a.sum() * 0.0
    sides = ((found.mask_logits_a, batch.masks_a), (found.mask_logits_b, batch.masks_b))
    losses = [
        functional.binary_cross_entropy_with_logits(logits[batch.masked].float(), masks[batch.masked])
        for logits, masks in sides
    ]
    return losses[0] + losses[1]


def decision_loss(output: NetworkOutput, batch: Batch) -> torch.Tensor:
    """Binary cross-entropy of the decision."""
    return functional.binary_cross_entropy_with_logits(output.logit.float(), batch.match.float())


@torch.no_grad()
def validation_figures(
    model: PairNetwork, pictures: PairPictures, pairs: Sequence[PairExample], batch_size: int
) -> dict[str, float]:
    """``f1`` at the best ``threshold``, ``average_precision``, and, where masks are known, their ``iou`` on the grid.

    A network that treats its two images differently is asked in both orders, as in use.
    """
    scores, truth, ious = predict(model, pictures, pairs, batch_size)
    threshold = best_f1_threshold(scores, truth)
    figures = {
        "f1": decision_figures(scores >= threshold, truth).f1,
        "average_precision": average_precision(scores, truth),
        "threshold": threshold,
    }
    return figures | ({"iou": float(np.mean(ious))} if len(ious) else {})


@torch.no_grad()
def predict(
    model: PairNetwork, pictures: PairPictures, pairs: Sequence[PairExample], batch_size: int = 16
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores ``(n,)`` in [0, 1], labels ``(n,)``, and the mean IoU of both masks of each pair that has true ones."""
    model.eval()
    scores, truth, ious = [], [], []
    for start in range(0, len(pairs), batch_size):
        batch = pictures.batch(pairs[start : start + batch_size])
        output = model(batch.inputs_a, batch.inputs_b)
        logit, masks = output.logit, (output.mask_logits_a, output.mask_logits_b)
        if not model.config.symmetric:
            turned = batch.turned()
            other = model(turned.inputs_a, turned.inputs_b)
            logit = (logit + other.logit) / 2
            masks = ((masks[0] + other.mask_logits_b) / 2, (masks[1] + other.mask_logits_a) / 2)
        scores.append(logit.sigmoid().cpu().numpy())
        truth.append(batch.match.cpu().numpy())
        both = [
            _iou(found.sigmoid() > model.config.alpha, known > 0.5)
            for found, known in zip(masks, (batch.masks_a, batch.masks_b), strict=True)
        ]
        ious.append(((both[0] + both[1]) / 2)[batch.masked].cpu().numpy())
    return np.concatenate(scores), np.concatenate(truth), np.concatenate(ious)


def _iou(found: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    shared, either = (found & known).sum((1, 2)), (found | known).sum((1, 2))
    return shared / either.clamp(min=1)


def _parameter_groups(model: PairNetwork, config: TrainingConfig) -> list[dict[str, Any]]:
    pretrained = model.config.encoder == "resnet50" and model.config.backbone is not None
    slow = {id(one) for one in model.encoder.parameters()} if pretrained else set()
    groups = [
        {"params": [one for one in model.parameters() if id(one) not in slow], "scale": 1.0},
        {"params": [one for one in model.parameters() if id(one) in slow], "scale": _PRETRAINED_RATE},
    ]
    return [{**group, "lr": config.learning_rate} for group in groups if group["params"]]
