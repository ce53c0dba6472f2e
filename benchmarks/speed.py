"""``python -m fiftyone_selfsame.benchmarks.speed``: how fast the jobs are, beside what they are compared with.

Each sub-command lives in its own module, which adds its own options.
"""

import argparse
import sys

from ..brain.errors import SelfsameError
from . import (
    speed_claid,
    speed_correspondence,
    speed_duplicates,
    speed_ffa,
    speed_matcher,
    speed_million,
    speed_panels,
)


def main(arguments: list[str] | None = None) -> int:
    """Runs one sub-command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fiftyone_selfsame.benchmarks.speed", description=__doc__)
    subparsers = parser.add_subparsers(dest="command", required=True)
    speed_ffa.add_parser(subparsers)
    speed_duplicates.add_parser(subparsers)
    speed_million.add_parser(subparsers)
    speed_claid.add_parser(subparsers)
    speed_correspondence.add_parser(subparsers)
    speed_matcher.add_parser(subparsers)
    speed_panels.add_parser(subparsers)
    options = parser.parse_args(arguments)
    try:
        options.func(options)
    except SelfsameError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
