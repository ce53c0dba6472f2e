"""What a set of pictures has in common, without training: by votes for clusters, or picture against the others."""

import math
from collections.abc import Sequence

import numpy as np

from .comparison import Picture
from .patches import Patches, mean_of_nearest
from .spherical_kmeans import spherical_kmeans
from .training_free import PairConfig, cosalient_pair, otsu_level, tidy

# Share of the pictures that must vote for a cluster (Amir et al. 2021).
_MAJORITY = 0.75

# Patches of the others' foreground that a picture is compared with, spread evenly over them.
_MOST_PATCHES = 4096


def cosalient_set(pictures: Sequence[Picture], config: PairConfig | None = None) -> list[np.ndarray]:
    """Finds what pictures have in common; for two it is what :func:`.training_free.cosalient_pair` finds.

    Args:
        pictures: at least two described pictures, by one and the same backbone.
        config: None takes the defaults; ``"clusters"`` is the cluster-and-vote form.

    Returns:
        ``(h, w)`` float32 evidence per patch of each picture, positive for the common object; -1 throughout for a
        picture that lacks it, and for all of them where nothing is in common.
    """
    config = config or PairConfig()
    if len(pictures) == 2 and config.method == "mutual":
        pair = cosalient_pair(pictures[0], pictures[1], config)
        return [pair.map_a, pair.map_b]
    everything = [Patches.of(picture) for picture in pictures]
    if config.method == "clusters":
        return _voted(everything, config)
    return _against_others(everything, config)


def _voted(everything: Sequence[Patches], config: PairConfig) -> list[np.ndarray]:
    tokens = np.concatenate([patches.tokens for patches in everything])
    clusters = spherical_kmeans(tokens, config.fewest, config.most, config.ratio)
    count = len(clusters.centres)
    labels = np.split(clusters.label, np.cumsum([len(patches.tokens) for patches in everything])[:-1])
    votes = np.zeros(count, int)
    for patches, label in zip(everything, labels, strict=True):
        level = otsu_level(patches.saliency) if config.saliency_level is None else config.saliency_level
        votes += np.bincount(label, patches.saliency, count) / np.bincount(label, minlength=count).clip(1) > level
    needed = 2 if len(everything) == 2 else math.ceil(_MAJORITY * len(everything))
    foreground = votes >= needed
    maps = [np.full(patches.grid_hw, -1.0, np.float32) for patches in everything]
    if not foreground.any():
        return maps
    for number, (patches, label) in enumerate(zip(everything, labels, strict=True)):
        cosine = patches.tokens @ clusters.centres.T
        others = cosine[:, ~foreground].max(axis=1) if (~foreground).any() else np.float32(-1)
        evidence = cosine[:, foreground].max(axis=1) - others
        found = np.where(foreground[label], evidence.clip(1e-6), evidence.clip(max=-1e-6)).astype(np.float32)
        if (found > 0).sum() >= config.min_patches:
            maps[number] = patches.on_grid(found, -1.0)
    return maps


def _against_others(everything: Sequence[Patches], config: PairConfig) -> list[np.ndarray]:
    inside = [patches.saliency > 0.5 for patches in everything]
    evidence = [patches.saliency for patches in everything]
    for _ in range(config.rounds):
        evidence = [_contrast(everything, inside, number, config) for number in range(len(everything))]
        inside = [found > 0 for found in evidence]
    maps = []
    for number, patches in enumerate(everything):
        found = patches.on_grid(evidence[number], -1.0)
        mask = patches.from_grid(tidy(found > 0, config.min_part))
        enough = mask.sum() >= max(config.min_patches, config.min_share * len(mask))
        shared = enough and _returning(everything, inside, number, mask, config) >= config.min_consistent
        maps.append(found if shared else np.full_like(found, -1.0))
    # What only one picture has is not in common.
    return maps if sum((found > 0).any() for found in maps) > 1 else [np.full_like(found, -1.0) for found in maps]


def _contrast(everything: Sequence[Patches], inside: Sequence[np.ndarray], own: int, config: PairConfig) -> np.ndarray:
    patches = everything[own]
    like_object = mean_of_nearest(patches.tokens, _foreground_of_others(everything, inside, own), config.nearest)
    like_ground = mean_of_nearest(patches.tokens, patches.tokens[~inside[own]], config.nearest)
    return config.contrast * (like_object - like_ground) + config.trust * (2 * patches.saliency - 1)


def _foreground_of_others(everything: Sequence[Patches], inside: Sequence[np.ndarray], own: int) -> np.ndarray:
    found = np.concatenate(
        [patches.tokens[mask] for n, (patches, mask) in enumerate(zip(everything, inside, strict=True)) if n != own]
    )
    if len(found) <= _MOST_PATCHES:
        return found
    return found[np.linspace(0, len(found) - 1, _MOST_PATCHES).round().astype(int)]


def _returning(
    everything: Sequence[Patches], inside: Sequence[np.ndarray], own: int, mask: np.ndarray, config: PairConfig
) -> float:
    """Share of a mask's patches whose most similar patch in the others' objects has them for its most similar here."""
    patches, others = everything[own], _foreground_of_others(everything, inside, own)
    if not len(others):
        return 0.0
    cosine = patches.tokens @ others.T
    partner, back = cosine.argmax(axis=1), cosine.argmax(axis=0)
    error = np.abs(patches.places - patches.places[back[partner]]).max(axis=1)
    return float((mask & (error <= config.reach)).sum() / mask.sum())
