"""The first stage of the pipeline: it only checks params.yaml, as every stage does.

Reads  params.yaml
Writes data/params_checked.txt (always the same text, so that no later stage reruns)
"""

from hbn.files import write_text
from hbn.stage import run


def main(p) -> None:
    write_text("data/params_checked.txt", "params.yaml is valid\n")


if __name__ == "__main__":
    run(main, reads=())
