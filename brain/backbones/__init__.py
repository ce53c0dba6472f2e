"""Frozen image encoders behind one interface: `load_backbone(name).tokens(images)`."""

from .base import Backbone, Tokens
from .catalog import CATALOG, BackboneInfo
from .default import default_backbone_name, default_backbone_notice
from .embedded import embedded_info, hybrid_info
from .loader import load_backbone

__all__ = [
    "Backbone",
    "BackboneInfo",
    "Tokens",
    "default_backbone_name",
    "default_backbone_notice",
    "list_backbones",
    "load_backbone",
]


def list_backbones() -> list[BackboneInfo]:
    """All backbones to choose from by name, the embedded ones first; any other model is given by hub id or folder."""
    return [embedded_info(), hybrid_info(), *CATALOG.values()]
