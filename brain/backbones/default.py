"""Which backbone is used when the user names none, and why."""

from dataclasses import dataclass
from functools import cache

from .catalog import CATALOG, OFFLINE_DEFAULT
from .embedded import embedded_folder
from .hub import hub_has, hub_id_of, is_offline, local_model_folder, where_to_put

# Small first: it takes a quarter of the base model's arithmetic, so that a first try on a laptop's CPU ends while the
# user still looks; the base model of the published pipeline is one choice away.
PREFERRED = "dinov2-small"
_ORDER = tuple(sorted((n for n in CATALOG if n.startswith("dinov2-")), key=lambda n: (CATALOG[n].parameters, len(n))))


@dataclass(frozen=True)
class _Choice:
    name: str
    notice: str | None


def default_backbone_name() -> str:
    """The best model for a first try on this machine.

    A DINOv2 model that is already here (smallest first); else DINOv2 small, if the Hub answers within three seconds
    (asked once per process, and not at all under ``HF_HUB_OFFLINE``); else :data:`.catalog.OFFLINE_DEFAULT`.
    """
    return _choose().name


def default_backbone_notice() -> str | None:
    """One line that tells the user what the choice means; None if there is nothing to say."""
    return _choose().notice


def _choose() -> _Choice:
    for name in _ORDER:
        if local_model_folder(name) is not None:
            return _Choice(name, None)
    if not is_offline() and _hub_answers():
        megabytes = CATALOG[PREFERRED].parameters * 4
        return _Choice(PREFERRED, f"{PREFERRED} (about {megabytes} MB) will be downloaded at first use.")
    own = "an untrained stand-in for its own model" if embedded_folder() is None else "its own small model"
    return _Choice(
        OFFLINE_DEFAULT,
        f"No DINOv2 weights here and no way to the Hugging Face Hub: Selfsame uses {own} ({OFFLINE_DEFAULT}), of demo"
        f" grade and far from DINOv2's quality. For real results go online or, for {PREFERRED},"
        f" {where_to_put(PREFERRED)}.",
    )


@cache
def _hub_answers() -> bool:
    return hub_has(hub_id_of(PREFERRED))
