"""Write the small benchmark folders that the tests use: python scripts/make_benchmark_fixtures.py DIR [NAME ...].

Each has the schema of the real data set and nothing of its content. `unsee check DIR/NAME` opens them.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fixtures.benchmarks import fixtures


def main(words: list[str]) -> int:
    """Write the named fixtures, or all, into folders of their names."""
    known = fixtures()
    if not words or not set(words[1:]) <= set(known):
        print(f"usage: make_benchmark_fixtures.py DIR [{' | '.join(known)} ...]", file=sys.stderr)
        return 2
    for name in words[1:] or known:
        place = Path(words[0]) / name
        place.mkdir(parents=True)
        known[name].build(place)
        print(place)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
