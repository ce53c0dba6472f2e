"""The card of a trained matcher: what it is, what it was trained on, and what it is not good for."""

from collections.abc import Mapping
from typing import Any

_KINDS = {
    "network": "a pair network: co-salient masks and a decision on unstructured objects, after SCOTT",
    "logistic": "the training-free matcher with a calibration of its scores that was fitted on labelled pairs",
}


def matcher_card(name: str, config: Mapping[str, Any]) -> str:
    """Markdown text of ``README.md``.

    Args:
        name: of the matcher.
        config: content of its ``config.json``.
    """
    options = config["network"] or config["free"]
    lines = [
        f"# {name}",
        "",
        f"Selfsame matcher, {_KINDS[config['kind']]}.",
        "",
        f"A pair is a match from a score of {config['threshold']:.4g}, chosen on validation pairs. The score is as good"
        " as the pairs it was trained on: objects or cameras of another kind need pairs of their own. Several equal"
        " objects in one image, and objects of one category that look almost alike, are its known weaknesses.",
        "",
        "Use it by its name: `match_objects(pairs, matcher=NAME)`.",
        *_table("Options", {key: value for key, value in options.items() if value is not None}),
        *_table("Training", config["facts"]),
    ]
    return "\n".join(lines) + "\n"


def _table(title: str, values: Mapping[str, Any]) -> list[str]:
    if not values:
        return []
    rows = [f"| {key} | {_cell(value)} |" for key, value in values.items()]
    return ["", f"## {title}", "", "| | |", "|---|---|", *rows]


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "\\|").split())
