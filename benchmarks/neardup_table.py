"""The last table of `quality neardup`: this plugin's same shots beside the best of each peer, kind by kind."""

from collections.abc import Mapping, Sequence
from typing import Any

OWN = "selfsame"

# The methods of each package that is compared with.
PEERS = {
    "fiftyone_brain": ("fiftyone_brain",),
    "imagehash": ("phash", "dhash"),
    "imagededup": ("imagededup_phash", "imagededup_dhash", "imagededup_ahash", "imagededup_whash"),
}


TITLE = (
    "F1 per kind: selfsame at its default and at its best threshold, each package with its best method and threshold\n"
    "(ahead: selfsame at its default less the best package; oracle: the best package with a threshold for each kind)"
)


def against_peers(rows: Sequence[Mapping[str, Any]], single: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """F1 per kind: selfsame at its default and at its best threshold, each package with its best method and threshold.

    Args:
        rows: figures of every method at its default threshold and at the one that is best over all pairs.
        single: method → kind → highest F1 at any threshold.

    Returns:
        A row per kind; ``ahead`` is selfsame's default less the best package, and ``oracle`` what any package reaches
        where each kind may have a method and a threshold of its own.
    """
    f1 = {(row["method"], row["group"], row["scope"]): row["f1"] for row in rows}
    table = []
    for group in single.get(OWN, {}):
        own = f1[OWN, group, "default"]
        peers = {
            peer: max((f1[method, group, "best"] for method in methods if method in single), default=None)
            for peer, methods in PEERS.items()
        }
        known = [score for score in peers.values() if score is not None]
        oracle = [single[method][group] for methods in PEERS.values() for method in methods if method in single]
        ahead = own - max(known) if known else None
        table.append(
            {
                "kind": group,
                OWN: own,
                f"{OWN}_best": f1[OWN, group, "best"],
                **peers,
                "ahead": ahead,
                "verdict": verdict(ahead),
                "oracle": max(oracle, default=None),
            }
        )
    return table


def verdict(ahead: float | None) -> str:
    """Which side is ahead, in a word."""
    if ahead is None:
        return "no peer"
    if abs(ahead) < 5e-4:
        return "tie"
    return "above" if ahead > 0 else "below"
