"""Part groups and mirror partners from a ``keypoint_groups.json``: for data sets that the package has no table of."""

from __future__ import annotations

import os
from pathlib import Path

from ..keypoint_groups import KeypointGroups, groups_from_table
from .files import read_json, reading


def read_groups(path: str | os.PathLike) -> dict[str, dict[str, KeypointGroups]]:
    """All tables of the file by data set and category.

    Args:
        path: of a JSON object ``{data set: {category: table}}``, tables as of
            :func:`..keypoint_groups.groups_from_table`; an entry ``about`` is left out.

    Raises:
        ConfigError: the file is missing or broken; it names file, data set and category.
    """
    path = Path(path)
    content = read_json(path)
    found: dict[str, dict[str, KeypointGroups]] = {}
    with reading(path, "a table of keypoint groups by data set and category"):
        for data_set, categories in content.items():
            if data_set == "about":
                continue
            found[data_set] = {}
            for category, table in categories.items():
                with reading(Path(f"{path}: {data_set}, {category}"), "a table of keypoint groups"):
                    found[data_set][category] = groups_from_table(table)
    return found
