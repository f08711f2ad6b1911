"""Write one HTML file with all results, which needs no network: `make plots`.

Reads  dvc.yaml, dvc.lock, metrics/, plots/, `dvc exp show`, git; models/challenge1.pt and .scratch where they exist
Writes report/page.html (images are inside it)
"""

import sys
from pathlib import Path

from hbn.files import HbnError, write_text
from hbn.reporting.page import render
from hbn.stage import scratch

PAGE = Path("report/page.html")

if __name__ == "__main__":
    try:
        write_text(PAGE, render(scratch()))
    except HbnError as error:
        sys.exit(f"page.py: {error}")
    print(f"{PAGE} is written")
