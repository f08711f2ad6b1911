"""Nothing but the check of params.yaml that every stage makes, as the first stage of the pipeline.

Reads  params.yaml
Writes data/params_checked.txt (always the same text, so that nothing after it reruns)
"""

from hbn.files import write_text
from hbn.stage import run


def main(p) -> None:
    write_text("data/params_checked.txt", "params.yaml is valid\n")


if __name__ == "__main__":
    run(main, reads=())
