"""Print the model card of a model file, in Markdown: `python src/describe.py models/challenge1.pt`.

Reads  the model file, dvc.lock and git (its origin), metrics/ (its scores)
"""

import signal
import sys

from hbn.files import HbnError
from hbn.reporting.model_card import card

if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `... | head` ends it without a word
    if len(sys.argv) != 2:
        sys.exit("usage: python src/describe.py models/challenge1.pt")
    try:
        print(card(sys.argv[1]))
    except HbnError as error:
        sys.exit(f"describe.py: {error}")
