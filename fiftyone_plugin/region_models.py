"""The encoders behind a search, as the regions were made; the loader keeps them between searches."""

from collections.abc import Mapping
from typing import Any

from ..brain.backbones import load_backbone
from ..brain.backbones.text import TextEncoder, load_text_encoder
from ..brain.claid.presets import PIPELINE_OPTIONS, TOKENS, region_extractor
from ..brain.claid.regions import RegionExtractor
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
    descriptor = info["descriptor"]
    options = {name: info[name] for name in PIPELINE_OPTIONS if name in info}
    options |= {name: descriptor[name] for name in ("layer", "pooling", "area")}
    options["descriptor"] = TOKENS if info["shared_tokens"] else descriptor["model"]
    backbone = load_backbone(info["model"], device=device)
    extractor = region_extractor("default", backbone, options, max_side=descriptor["max_side"], device=device)
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
    encoder = load_text_encoder(descriptor["model"], device=device)
    _check_weights(encoder.weights_hash, info)
    return encoder


def _check_weights(now: str, info: Mapping[str, Any]) -> None:
    then = info["descriptor"]
    if now != then["weights_hash"]:
        raise ConfigError(
            f"the weights of {then['model']!r} have changed since the regions were described; run "
            "compute_claid_regions again with overwrite=True"
        )
