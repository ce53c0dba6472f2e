"""The calibrations of pair scores that come with the package, by backbone."""

from ..backbones.base import Backbone
from .calibration import Calibration

SCORES = ("similarity", "consistency", "ffa")

# Rises with each score, from about 0.1 for unlike pictures to 0.9 for copies; fitted on nothing.
UNCALIBRATED = Calibration(SCORES, (3.0, 4.0, 3.0), -5.0)

# Fitted at the default settings on 800 rendered pairs of movable objects (the scenes of preset "matching"), no
# photograph among them, whose 138 objects are half of those rendered.
_FITTED = {
    "embedded-hybrid": Calibration(
        SCORES,
        (18.791154, 4.770985, 0.0),
        -14.914311,
        threshold=0.350486,
        fitted_on=800,
        weights_hash="0805ad9e424bb2074a9994e02c880886a870146b07de3ca667cf68800a7f77d1",
    )
}


def calibration_of(backbone: Backbone) -> Calibration:
    """The calibration fitted on scores of this backbone; :data:`UNCALIBRATED` where there is none."""
    found = _FITTED.get(backbone.name, UNCALIBRATED)
    return found if found.weights_hash in ("", backbone.weights_hash) else UNCALIBRATED
