"""``python -m fiftyone_selfsame.benchmarks.quality``: how good the results are, on data with ground truth.

Each sub-command lives in its own module, which adds its own options.
"""

import argparse
import sys

from ..brain.errors import SelfsameError
from . import coseg, embedded, foreground, identity, keypoints, neardup, search

COMMANDS = (identity, neardup, foreground, keypoints, embedded, search, coseg)


def main(arguments: list[str] | None = None) -> int:
    """Runs one sub-command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fiftyone_selfsame.benchmarks.quality", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    options = parser.parse_args(arguments)
    try:
        options.func(options)
    except SelfsameError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
