"""Loading an encoder for a job: which one, what the user should know of it, how many images it takes at once."""

import logging

from ..brain.backbones import Backbone, default_backbone_name, default_backbone_notice, load_backbone

logger = logging.getLogger(__name__)

# Images per forward pass: enough to fill a GPU; on a CPU larger batches only take memory.
_GPU_BATCH, _CPU_BATCH = 64, 8


def load_model(name: str | None, device: str, precision: str) -> tuple[Backbone, list[str]]:
    """A backbone, and what the user should know if we chose it (``name`` is None)."""
    notice = default_backbone_notice() if name is None else None
    if notice:
        logger.warning(notice)
    backbone = load_backbone(name or default_backbone_name(), device=device, precision=precision)
    return backbone, [notice] if notice else []


def default_batch_size(backbone: Backbone) -> int:
    """Images at once, where the user names no number."""
    return _CPU_BATCH if backbone.device.type == "cpu" else _GPU_BATCH
