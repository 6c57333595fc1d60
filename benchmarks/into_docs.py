"""into_docs.py: puts generated Markdown tables into a page of the documentation.

python -m benchmarks.into_docs docs/experiments/robustness.md alarms=out/robustness.md ...

A page has `<!-- begin NAME -->` and `<!-- end NAME -->`; what stands between them is replaced.
Lines of the file that begin with "# " are left out: the page has its own title.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path


def insert(page: str, name: str, text: str) -> str:
    """The page with `text` between the marks of that name; ValueError if it lacks them."""
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"the page must have one {begin.strip()} and one {end}")
    before, rest = page.split(begin)
    after = rest.split(end)[1]
    lines = [line for line in text.splitlines() if not line.startswith("# ")]
    return before + begin + "\n".join(lines).strip() + "\n" + end + after


def main(arguments: Sequence[str]) -> int:
    if len(arguments) < 2 or any("=" not in pair for pair in arguments[1:]):
        print(__doc__, file=sys.stderr)
        return 2
    path = Path(arguments[0])
    try:
        page = path.read_text()
        for pair in arguments[1:]:
            name, file = pair.split("=", 1)
            page = insert(page, name, Path(file).read_text())
        beside = path.with_name(path.name + ".part")
        beside.write_text(page)
        os.replace(beside, path)
    except (OSError, ValueError) as error:
        print(f"into_docs: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
