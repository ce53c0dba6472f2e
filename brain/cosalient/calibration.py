"""From the scores of a pair to a probability that both pictures show the same object: one logistic, fitted on pairs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..errors import ConfigError, ModelError
from ..metrics.decisions import best_f1_threshold

# Of each answer, fewer pairs than this say nothing about a threshold.
LEAST_PAIRS = 5


@dataclass(frozen=True)
class Calibration:
    """A logistic of the scores of a pair.

    Attributes:
        names: the scores, in order.
        weights: one per score.
        bias: added to the weighted sum.
        threshold: least probability of a match.
        fitted_on: pairs that it was fitted on; 0 where it was set by hand.
        weights_hash: of the backbone whose tokens the scores were computed from; empty where it is not bound to one.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    bias: float
    threshold: float = 0.5
    fitted_on: int = 0
    weights_hash: str = ""

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """``(n,)`` probabilities of ``(n, s)`` scores."""
        return 1.0 / (1.0 + np.exp(-(np.asarray(scores) @ np.array(self.weights) + self.bias)))

    def save(self, path: Path) -> None:
        """Writes the calibration as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Calibration":
        """Reads what :meth:`save` wrote.

        Raises:
            ModelError: the file is missing or is no calibration.
        """
        try:
            content = json.loads(path.read_text("utf-8"))
            found = cls(**{**content, "names": tuple(content["names"]), "weights": tuple(content["weights"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ModelError(f"{path}: no calibration of pair scores ({error}); fit it again") from error
        if len(found.names) != len(found.weights):
            raise ModelError(f"{path}: {len(found.names)} scores but {len(found.weights)} weights; fit it again")
        return found


def fit_calibration(
    scores: np.ndarray, labels: Sequence[bool], names: Sequence[str], *, weights_hash: str = ""
) -> Calibration:
    """Fits the logistic, and chooses the threshold of the best F1 on the same pairs.

    All scores say "same" when they rise, so a weight that comes out negative is an accident of few pairs: such a score
    is left out, and the rest is fitted again.

    Args:
        scores: ``(n, s)``.
        labels: ``(n,)`` whether the pair matches.
        names: of the scores.
        weights_hash: of the backbone behind the scores.

    Raises:
        ConfigError: too few pairs of one kind.
    """
    from sklearn.linear_model import LogisticRegression

    scores, truth = np.asarray(scores, np.float64), np.asarray(labels, bool)
    matching = int(truth.sum())
    if min(matching, len(truth) - matching) < LEAST_PAIRS:
        raise ConfigError(
            f"{matching} matching and {len(truth) - matching} other pairs are too few to calibrate on; label at least "
            f"{LEAST_PAIRS} of each"
        )
    mean, spread = scores.mean(axis=0), scores.std(axis=0).clip(1e-6)
    kept = np.ones(scores.shape[1], bool)
    while True:
        model = LogisticRegression(class_weight="balanced").fit(((scores - mean) / spread)[:, kept], truth)
        worst = int(model.coef_[0].argmin())
        if model.coef_[0][worst] >= 0 or kept.sum() == 1:
            break
        kept[np.flatnonzero(kept)[worst]] = False
    weights = np.zeros(scores.shape[1])
    weights[kept] = model.coef_[0].clip(0) / spread[kept]
    bias = float(model.intercept_[0] - weights @ mean)
    plain = Calibration(tuple(names), tuple(weights.tolist()), bias, fitted_on=len(truth), weights_hash=weights_hash)
    threshold = best_f1_threshold(plain.probability(scores), truth)
    return Calibration(plain.names, plain.weights, bias, threshold, len(truth), weights_hash)
