"""The encoders behind a search, kept between searches: a user who looks around should wait for them once."""

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

from ..brain.backbones import load_backbone
from ..brain.backbones.text import TextEncoder, load_text_encoder
from ..brain.claid.options import DetectorOptions
from ..brain.claid.presets import TOKENS, region_extractor
from ..brain.claid.regions import RegionExtractor, WorkingSize
from ..brain.errors import ConfigError


def extractor_of(info: Mapping[str, Any], device: str) -> RegionExtractor:
    """What made the regions and vectors of an index.

    Args:
        info: what :meth:`RegionExtractor.config_dict` said.
        device: where it shall run.

    Raises:
        ConfigError: the weights of that name are others now, so that vectors could not be compared.
        ModelError: an encoder cannot be loaded.
    """
    extractor = _extractor(json.dumps(dict(info), sort_keys=True), device)
    _check_weights(extractor.describer.weights_hash, info)
    return extractor


def text_encoder_of(info: Mapping[str, Any], device: str) -> TextEncoder:
    """The text tower that belongs to the descriptor of an index.

    Raises:
        ConfigError: the regions were described by a model that knows no words, or by other weights of that name.
        ModelError: it cannot be loaded.
    """
    descriptor = info["descriptor"]
    if descriptor["pooling"] != "attention":
        raise ConfigError(
            f"text: these regions were described by {descriptor['model']!r}, which knows no words; describe regions "
            "with SigLIP first, e.g. compute_claid_regions(dataset, 'words', descriptor='siglip2-base'), and search "
            "with field='words'"
        )
    encoder = _text_encoder(descriptor["model"], device)
    _check_weights(encoder.weights_hash, info)
    return encoder


def _check_weights(now: str, info: Mapping[str, Any]) -> None:
    then = info["descriptor"]
    if now != then["weights_hash"]:
        raise ConfigError(
            f"the weights of {then['model']!r} have changed since the regions were described; run "
            "compute_claid_regions again with overwrite=True"
        )


@lru_cache(maxsize=2)
def _extractor(info: str, device: str) -> RegionExtractor:
    made = json.loads(info)
    descriptor = made["descriptor"]
    options = {option.name: made[option.name] for kind in (DetectorOptions, WorkingSize) for option in fields(kind)}
    options |= {name: descriptor[name] for name in ("layer", "pooling", "area")}
    options["descriptor"] = TOKENS if made["shared_tokens"] else descriptor["model"]
    backbone = load_backbone(made["model"], device=device)
    return region_extractor("default", backbone, options, max_side=descriptor["max_side"], device=device)


@lru_cache(maxsize=1)
def _text_encoder(name: str, device: str) -> TextEncoder:
    return load_text_encoder(name, device=device)
