"""Draw the pictures and write the numbers of README.md and docs/: `make figures`.

Reads  metrics/, plots/, benchmarks/results/, src/ (the errors that it can raise), models/challenge1.pt where it exists
Writes docs/figures/*.svg, and in README.md and docs/*.md what stands between <!-- made: NAME --> and <!-- /made -->
"""

import sys
from pathlib import Path

from hbn.files import HbnError, write_text
from hbn.reporting.made_text import filled
from hbn.reporting.pictures import MODEL, PICTURES, SCALP, scalp_maps

PAGES = ("README.md", "docs/*.md")


def main() -> None:
    root = Path()
    for name, draw in PICTURES.items():
        write_text(root / f"docs/figures/{name}.svg", draw(root))
    if MODEL.exists():
        write_text(SCALP, scalp_maps(root))
    else:
        print(f"{SCALP} stays as it is: it needs {MODEL}, which `dvc repro challenge1` makes")
    for page in (page for pattern in PAGES for page in sorted(root.glob(pattern))):
        text = page.read_text(encoding="utf-8")
        if (new := filled(text, root)) != text:
            write_text(page, new)
            print(f"{page} is written anew")


if __name__ == "__main__":
    try:
        main()
    except HbnError as error:
        sys.exit(f"figures.py: {error}")
