"""From the similarities of a point to all cells of a grid to the place where it is found.

Four ways: the most similar cell; the mean of all cells under a softmax; the same within a window around the most
similar cell; the same with similarities weighed by a Gaussian around it. Source: Zhang et al., "Telling Left from
Right: Identifying Geometry-Aware Semantic Correspondence" (CVPR 2024), whose release multiplies similarities outside of
the window by zero. A cell of similarity zero still has weight, so that weak matches drift to the middle of the grid;
the default here is to leave those cells out.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from ..errors import ConfigError

Decoding = Literal["nearest", "soft", "window", "gaussian"]
DECODINGS: tuple[Decoding, ...] = ("nearest", "soft", "window", "gaussian")
WindowFill = Literal["mask", "zero"]
WINDOW_FILLS: tuple[WindowFill, ...] = ("mask", "zero")


@dataclass(frozen=True)
class DecodeConfig:
    """How a place is read from similarities.

    Attributes:
        method: ``"nearest"`` takes the most similar cell, ``"soft"`` the mean under a softmax, ``"window"`` the same
            near the most similar cell, ``"gaussian"`` the same with a Gaussian around it.
        temperature: of the softmax.
        radius: of the window in cells, by the larger of both distances: 5 is a window of 11 × 11.
        sigma: of the Gaussian in cells.
        window_fill: ``"mask"`` leaves out the cells outside of the window, ``"zero"`` gives them similarity 0 as the
            release does.

    Raises:
        ConfigError: a value cannot work.
    """

    method: Decoding = "window"
    temperature: float = 0.02
    radius: int = 5
    sigma: float = 5.0
    window_fill: WindowFill = "mask"

    def __post_init__(self) -> None:
        if self.method not in DECODINGS:
            raise ConfigError(f"matching={self.method!r} is unknown; use one of {', '.join(DECODINGS)}")
        if self.window_fill not in WINDOW_FILLS:
            raise ConfigError(f"window_fill={self.window_fill!r} is unknown; use one of {', '.join(WINDOW_FILLS)}")
        if not self.temperature > 0 or not self.sigma > 0 or self.radius < 0:
            raise ConfigError(
                f"temperature={self.temperature} and sigma={self.sigma} must be positive, radius={self.radius} not"
                " negative"
            )


@dataclass(frozen=True)
class Decoded:
    """Where n points were found.

    Attributes:
        places: ``(n, 2)`` float32 column and row, in cells.
        cells: ``(n,)`` int64 most similar cell.
        peaks: ``(n,)`` float32 similarity of that cell.
    """

    places: torch.Tensor
    cells: torch.Tensor
    peaks: torch.Tensor


def decode(similarity: torch.Tensor, config: DecodeConfig | None = None, valid: torch.Tensor | None = None) -> Decoded:
    """Reads the places of n points.

    Args:
        similarity: ``(n, h, w)`` float; larger is more alike.
        config: None takes the defaults.
        valid: ``(h, w)`` or ``(n, h, w)`` bool: cells that may be found; None allows all. Where a point has no such
            cell, its place and its peak are NaN.

    Raises:
        ConfigError: shapes disagree.
    """
    config = config or DecodeConfig()
    if similarity.ndim != 3 or not similarity.shape[1] * similarity.shape[2]:
        raise ConfigError(f"similarities of shape {tuple(similarity.shape)} cannot be decoded; give (n, h, w)")
    if valid is not None and valid.shape not in (similarity.shape, similarity.shape[1:]):
        raise ConfigError(f"valid cells of shape {tuple(valid.shape)} for similarities {tuple(similarity.shape)}")
    allowed = similarity if valid is None else similarity.masked_fill(~valid, -torch.inf)
    peaks, cells = allowed.flatten(1).max(dim=1)
    places = _DECODERS[config.method](allowed, cells, config)
    found = peaks > -torch.inf
    return Decoded(
        torch.where(found[:, None], places, torch.nan), cells, torch.where(found, peaks, torch.nan).to(similarity.dtype)
    )


def _nearest(similarity: torch.Tensor, cells: torch.Tensor, config: DecodeConfig) -> torch.Tensor:
    return _places(cells, similarity.shape[2]).to(similarity.dtype)


def _soft(similarity: torch.Tensor, cells: torch.Tensor, config: DecodeConfig) -> torch.Tensor:
    """Mean column and row under the softmax: its sums along rows and along columns are all that is needed."""
    height, width = similarity.shape[1:]
    weights = torch.softmax(similarity.flatten(1) / config.temperature, dim=1).view_as(similarity)
    columns = torch.arange(width, dtype=similarity.dtype, device=similarity.device)
    rows = torch.arange(height, dtype=similarity.dtype, device=similarity.device)
    return torch.stack([weights.sum(dim=1) @ columns, weights.sum(dim=2) @ rows], dim=1)


def _window(similarity: torch.Tensor, cells: torch.Tensor, config: DecodeConfig) -> torch.Tensor:
    """The soft mean over the cells of the window alone; those outside, which all weigh the same, are summed exactly."""
    n, (height, width) = len(similarity), similarity.shape[1:]
    centre = _places(cells, width)
    reach = torch.arange(-config.radius, config.radius + 1, device=similarity.device)
    columns, rows = centre[:, :1] + reach, centre[:, 1:] + reach
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    values = similarity.flatten(1).gather(1, index.flatten(1)).view(index.shape)
    scaled = torch.where(inside, values, -torch.inf) / config.temperature
    highest = scaled.amax(dim=(1, 2))
    if config.window_fill == "zero":
        highest = highest.clamp(min=0.0)
    weights = (scaled - highest[:, None, None]).exp()
    mass = weights.sum(dim=(1, 2))
    moments = torch.stack(
        [(weights.sum(dim=1) * columns).sum(dim=1), (weights.sum(dim=2) * rows).sum(dim=1)], dim=1
    ).to(similarity.dtype)
    if config.window_fill == "zero":
        outside = similarity.flatten(1) > -torch.inf
        outside = outside.scatter(1, index.flatten(1), False).view(n, height, width).to(similarity.dtype)
        weight = (-highest).exp()
        places = torch.arange(max(height, width), dtype=similarity.dtype, device=similarity.device)
        sums = torch.stack([outside.sum(dim=1) @ places[:width], outside.sum(dim=2) @ places[:height]], dim=1)
        mass = mass + weight * outside.sum(dim=(1, 2))
        moments = moments + weight[:, None] * sums
    return moments / mass[:, None]


def _gaussian(similarity: torch.Tensor, cells: torch.Tensor, config: DecodeConfig) -> torch.Tensor:
    height, width = similarity.shape[1:]
    centre = _places(cells, width)
    columns = torch.arange(width, device=similarity.device) - centre[:, :1]
    rows = torch.arange(height, device=similarity.device) - centre[:, 1:]
    across, down = ((-(d**2) / (2 * config.sigma**2)).exp().to(similarity.dtype) for d in (columns, rows))
    weighed = similarity * (down[:, :, None] * across[:, None, :])
    # A factor that has vanished must not bring an excluded cell back.
    return _soft(weighed.masked_fill(similarity == -torch.inf, -torch.inf), cells, config)


_DECODERS = {"nearest": _nearest, "soft": _soft, "window": _window, "gaussian": _gaussian}


def _places(cells: torch.Tensor, width: int) -> torch.Tensor:
    """``(n, 2)`` int64 column and row."""
    return torch.stack([cells % width, cells // width], dim=1)
