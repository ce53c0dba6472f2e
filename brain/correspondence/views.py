"""The ways to turn a picture before it is compared: mirrored from left to right, and by quarter turns."""

from dataclasses import dataclass

import numpy as np

from .grids import as_points


@dataclass(frozen=True)
class View:
    """A picture turned: first mirrored, then rotated.

    Attributes:
        mirrored: left and right are exchanged.
        quarter_turns: turns by 90° counter-clockwise, 0 to 3.
    """

    mirrored: bool = False
    quarter_turns: int = 0

    @property
    def name(self) -> str:
        """``"identity"``, ``"mirror"``, ``"rotate_90"``, ``"mirror_rotate_180"`` and so on."""
        parts = ["mirror"] * self.mirrored + [f"rotate_{90 * self.quarter_turns}"] * bool(self.quarter_turns)
        return "_".join(parts) or "identity"

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The picture, or the mask, ``(H, W, ...)``, as this view shows it; the sides change places at odd turns."""
        turned = image[:, ::-1] if self.mirrored else image
        return np.ascontiguousarray(np.rot90(turned, self.quarter_turns))

    def points(self, points: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
        """Where points of the picture lie in the view.

        Args:
            points: ``(n, 2)`` pixels of the picture; NaN stays NaN.
            image_hw: height and width of the picture.

        Returns:
            ``(n, 2)`` float64 pixels of the view.
        """
        x, y = as_points(points).T
        height, width = image_hw
        if self.mirrored:
            x = width - x
        for _ in range(self.quarter_turns):
            x, y = y, width - x
            height, width = width, height
        return np.stack([x, y], axis=1)

    def original_points(self, points: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
        """The inverse of :meth:`points`; ``image_hw`` is still that of the picture."""
        x, y = as_points(points).T
        height, width = image_hw[::-1] if self.quarter_turns % 2 else image_hw
        for _ in range(self.quarter_turns):
            x, y = height - y, x
            height, width = width, height
        return np.stack([width - x if self.mirrored else x, y], axis=1)


IDENTITY = View()
MIRROR = View(mirrored=True)

# What the release tries, and all that leaves the sides of a picture upright on the grid.
MIRROR_VIEWS: tuple[View, ...] = (IDENTITY, MIRROR)
ALL_VIEWS: tuple[View, ...] = tuple(View(mirrored, turns) for turns in range(4) for mirrored in (False, True))
