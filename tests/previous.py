"""Puts this version's schema into the tree of an older version, whose tests then run on it: `make previous`."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parents[1] / "jobs_service" / "database"


def main(tree: Path) -> None:
    """Replaces the files of the schema, and the two lists of them; the code stays the older one's."""
    there = tree / "jobs_service" / "database"
    for folder in ("schema", "routines"):
        shutil.rmtree(there / folder)
        shutil.copytree(HERE / folder, there / folder)
    ours, theirs = ((folder / "migrate.py").read_text() for folder in (HERE, there))
    for name in ("SCHEMA", "ROUTINES"):
        pattern = re.compile(rf"^{name} = \(.*?^\)$", re.MULTILINE | re.DOTALL)
        (files,) = pattern.findall(ours)
        theirs, replaced = pattern.subn(files, theirs)
        assert replaced == 1, f"{name} is not in the older migrate.py"
    (there / "migrate.py").write_text(theirs)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
