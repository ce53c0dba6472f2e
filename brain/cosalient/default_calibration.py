"""The calibrations of pair scores that come with the package, by backbone."""

from ..backbones.base import Backbone
from .calibration import Calibration

SCORES = ("similarity", "consistency", "ffa")

# Rises with each score, from about 0.1 for unlike pictures to 0.9 for copies; fitted on nothing.
UNCALIBRATED = Calibration(SCORES, (3.0, 4.0, 3.0), -5.0)

# Fitted on 1,200 rendered pairs of movable objects (the scenes of preset "matching"), no photograph among them.
_FITTED = {
    "embedded-hybrid": Calibration(
        SCORES,
        (12.847787, 5.504501, 0.0),
        -10.076153,
        threshold=0.407520,
        fitted_on=1200,
        weights_hash="0805ad9e424bb2074a9994e02c880886a870146b07de3ca667cf68800a7f77d1",
    )
}


def calibration_of(backbone: Backbone) -> Calibration:
    """The calibration that was fitted on scores of this backbone; :data:`UNCALIBRATED` where there is none."""
    found = _FITTED.get(backbone.name, UNCALIBRATED)
    return found if found.weights_hash in ("", backbone.weights_hash) else UNCALIBRATED
