"""Training a matcher on the user's own pairs, or calibrating the training-free one on them."""

import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fiftyone.core.collections as foc
import numpy as np

from ..brain.backbones.default import default_backbone_name
from ..brain.backbones.device import Precision
from ..brain.cosalient.calibration import fit_calibration
from ..brain.cosalient.loader import load_pair_matcher
from ..brain.cosalient.matcher_folder import open_matcher_folder, save_logistic
from ..brain.cosalient.network_config import ENCODERS, NetworkConfig
from ..brain.cosalient.registry import new_matcher_folder
from ..brain.cosalient.training import TrainingConfig, TrainingProgress, train_pair_network
from ..brain.errors import ConfigError, ModelError
from ..brain.metrics.decisions import average_precision, decision_figures
from .dataset_io import image_samples
from .engine.local import Progress
from .match_job import Source, compare_files
from .match_setup import recorded
from .matcher_examples import Examples, pair_examples, product_examples
from .pairs import is_pair_dataset
from .runs import RunSummary, run_key_for
from .steps import plain_function

METHOD = "train_matcher"

KINDS = ("network", "logistic")

_SCORES = ("similarity", "consistency", "ffa")

# Losses that are drawn while training goes on.
_CURVE = 24
_BARS = "▁▂▃▄▅▆▇█"


def train_matcher_steps(
    samples: foc.SampleCollection,
    name: str,
    *,
    kind: str = "network",
    labels: str = "both",
    masks: str | None = None,
    product: str | None = None,
    vectors: str | None = None,
    split: str | None = None,
    max_pairs: int = 2000,
    encoder: str = "tokens",
    head: str = "matcher",
    model: str | None = None,
    side: int = 224,
    steps: int = 600,
    learning_rate: float = 1e-3,
    batch_size: int = 16,
    validation_share: float = 0.25,
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "auto",
    num_workers: int = 2,
    overwrite: bool = False,
) -> Generator[Progress, None, RunSummary]:
    """Trains a matcher on labelled pairs; afterwards every operator that takes a matcher takes it by its name.

    Pairs come from a pair dataset (its ``label``, the decisions of a reviewer, or both), or from a dataset of images
    with the name of a product each: images of one product match, and look-alikes of different products do not. No
    object is trained on and validated on. A training that was interrupted goes on when it is asked for again with the
    same pairs and options.

    Args:
        samples: a pair dataset, or images with ``product``; or a view.
        name: of the matcher.
        kind: ``"network"``: a pair network; ``"logistic"``: the training-free matcher with its scores calibrated on
            these pairs, which needs fewer of them.
        labels: ``"label"``, ``"decisions"`` (tags ``match:accept`` and ``match:reject``) or ``"both"``.
        masks: Segmentation field of the pairs with what both images show; only masks in files; without it a network
            learns the decision alone.
        product: field with the product of each image.
        vectors: field of vectors by which look-alikes are found, with ``product``.
        split: field that says ``train`` or ``validation`` of each image; without it the pairs are split by object.
        max_pairs: most pairs to mine, with ``product``.
        encoder: ``"tokens"`` (those of a frozen backbone), ``"coder"`` or ``"resnet50"``.
        head: ``"matcher"``, ``"region"`` or ``"image"``.
        model: the backbone; None takes the best one at hand, and for ``"resnet50"`` random weights.
        side: side in pixels of the square that images are squashed to.
        steps: batches at most; it stops early when nothing gets better.
        learning_rate, batch_size, validation_share, seed: of the training.
        device, precision: where it runs and in which number format.
        num_workers: threads that decode, with ``"logistic"``.
        overwrite: replace a matcher of that name.

    Returns:
        What was done; ``details`` has the ``folder``, the ``threshold``, the ``figures`` of the validation pairs and
        the ``curve``: step and loss.

    Raises:
        ConfigError: too few pairs of one answer, a name that is taken, or an option that cannot work.
        ModelError: a model cannot be loaded.
    """
    started = time.perf_counter()
    if kind not in KINDS:
        raise ConfigError(f"kind={kind!r} is unknown; use one of {', '.join(KINDS)}")
    folder = _folder(name, overwrite)
    yield Progress(0, 1, label="Reading the pairs")
    examples = _examples(samples, labels, masks, product, vectors, split, max_pairs, seed)
    summary = RunSummary(run_key_for(f"matcher_{name}"), METHOD, _counts(examples))
    summary.failed = dict(examples.failed)
    config = {"name": name, "kind": kind, "labels": labels, "masks": masks, "product": product, "seed": seed}
    with recorded(samples._dataset, summary, config, started):
        if kind == "logistic":
            yield from _calibrate(summary, examples, folder, model, device, precision, num_workers)
        else:
            network = _network(encoder, head, model, side)
            segment = steps // 4 if any(one.mask_a for one in examples.pairs) else 0
            training = TrainingConfig(
                segment_steps=segment,
                match_steps=max(steps - segment, 1),
                batch_size=batch_size,
                learning_rate=learning_rate,
                validate_every=min(50, max((steps - segment) // 3, 1)),
                seed=seed,
            )
            halves = examples.halves(validation_share, seed)
            trained = train_pair_network(
                *halves,
                network,
                training,
                folder=folder,
                name=name,
                facts={"pairs of": samples._dataset.name},
                device=device,
                precision=precision,
            )
            yield from _train(summary, trained)
    summary.details |= {"matcher": name, "folder": str(folder)}
    summary.notices.append(f"Use it as matcher={name!r}: it is in the list of every form that asks for a matcher")
    return summary


train_matcher = plain_function(train_matcher_steps)


def _folder(name: str, overwrite: bool) -> Path:
    folder = new_matcher_folder(name)
    try:
        open_matcher_folder(folder)
    except ModelError:
        return folder
    if not overwrite:
        raise ConfigError(f"there is a matcher {name!r} already; pass overwrite=True to replace it, or another name")
    return folder


def _examples(
    samples: foc.SampleCollection,
    labels: str,
    masks: str | None,
    product: str | None,
    vectors: str | None,
    split: str | None,
    max_pairs: int,
    seed: int,
) -> Examples:
    if is_pair_dataset(samples) and product is None:
        return pair_examples(samples, labels=labels, masks=masks, split=split)
    if product is None or vectors is None:
        raise ConfigError(
            "these are no pairs: give the field with the product of each image as product=... and a field of vectors as"
            " vectors=..., or make pairs with create_pairs"
        )
    return product_examples(image_samples(samples), product, vectors, count=max_pairs, seed=seed, split=split)


def _counts(examples: Examples) -> dict[str, int]:
    matching = sum(one.match for one in examples.pairs)
    return {"pairs": len(examples.pairs), "matching": matching, "other": len(examples.pairs) - matching}


def _network(encoder: str, head: str, model: str | None, side: int) -> NetworkConfig:
    if encoder not in ENCODERS:
        raise ConfigError(f"encoder={encoder!r} is unknown; use one of {', '.join(ENCODERS)}")
    options: dict[str, Any] = {"encoder": encoder, "head": head, "side": side, "backbone": model}
    if encoder == "tokens":
        options |= {"backbone": model or default_backbone_name(), "cross_attention": True}
        options |= {"d": 96, "mask_width": 64, "match_width": 64, "k": 16}
    return NetworkConfig(**options)


def _train(summary: RunSummary, trained: Generator[TrainingProgress, None, Any]) -> Generator[Progress, None, None]:
    losses: list[float] = []
    while True:
        try:
            now = next(trained)
        except StopIteration as end:
            report = end.value
            break
        if now.loss is not None:
            losses.append(now.loss)
        yield Progress(now.step, now.steps, label=progress_label(now.stage, losses, now.figures))
    summary.details |= {
        "threshold": report.threshold,
        "figures": dict(report.figures),
        "curve": [[entry["step"], round(entry["loss"], 5)] for entry in report.history],
    }
    summary.counts["batches"] = report.steps
    summary.notices.append(_told(report.figures))


def progress_label(stage: str, losses: Sequence[float], figures: Mapping[str, float]) -> str:
    """Where training is, in a line, with the course of the loss as a row of bars."""
    stages = {"encoding": "Encoding pictures", "segment": "Learning masks", "match": "Learning to decide"}
    parts = [stages[stage]]
    if losses:
        parts.append(f"loss {losses[-1]:.3f} {_bars(losses)}")
    if figures:
        parts.append(f"validation F1 {figures['f1']:.2f}, AP {figures['average_precision']:.2f}")
    return " · ".join(parts)


def _bars(losses: Sequence[float]) -> str:
    """Mean losses of up to 24 equal spans, as bars."""
    spans = np.array_split(np.asarray(losses, float), min(_CURVE, len(losses)))
    means = np.array([span.mean() for span in spans])
    low, high = means.min(), means.max()
    heights = np.zeros(len(means)) if high <= low else (means - low) / (high - low)
    return "".join(_BARS[round(height * (len(_BARS) - 1))] for height in heights)


def _calibrate(
    summary: RunSummary,
    examples: Examples,
    folder: Path,
    model: str | None,
    device: str,
    precision: Precision,
    num_workers: int,
) -> Generator[Progress, None, None]:
    """Fits the logistic of the training-free scores."""
    pairs = examples.pairs
    matcher = load_pair_matcher(model=model, refine=False, device=device, precision=precision)
    files = [(Source(one.path_a), Source(one.path_b)) for one in pairs]
    scores = np.full((len(pairs), len(_SCORES)), np.nan)
    for done, (number, outcome) in enumerate(compare_files(files, matcher, num_workers=num_workers), 1):
        if isinstance(outcome, str):
            summary.failed[pairs[number].path_a] = outcome
        else:
            scores[number] = [outcome.scores[name] for name in _SCORES]
        yield Progress(done, len(pairs), len(summary.failed), label="Comparing pairs")
    known = np.isfinite(scores).all(axis=1)
    truth = np.array([one.match for one in pairs])[known]
    settings = matcher.settings()
    calibration = fit_calibration(scores[known], truth, _SCORES, weights_hash=settings["weights_hash"])
    decided = calibration.probability(scores[known])
    figures = {
        "f1": decision_figures(decided >= calibration.threshold, truth).f1,
        "average_precision": average_precision(decided, truth),
    }
    free = {"model": settings["model"], "saliency": settings["saliency"]}
    facts = {"pairs": int(known.sum()), **{f"{name} on these pairs": value for name, value in figures.items()}}
    save_logistic(folder, calibration, free=free, facts=facts)
    summary.details |= {"threshold": calibration.threshold, "figures": figures, "curve": []}
    summary.notices.append("F1 and AP are those of the pairs that it was fitted on: " + _told(figures))


def _told(figures: Mapping[str, float]) -> str:
    text = f"F1 {figures['f1']:.3f}, average precision {figures['average_precision']:.3f}"
    return text + (f", mask IoU {figures['iou']:.3f}" if "iou" in figures else "")
