"""Show runs in TensorBoard while they train: python src/board.py [--once]

Reads  plots/, metrics/ and params.yaml of the workspace, of running experiments and of finished experiments
Writes .scratch/board/<run>/, event files: every training curve, and the main scores beside the parameters (HParams)

It starts TensorBoard, follows the files and ends with Ctrl-C; --once writes the event files and ends. It needs
`pip install -r requirements-board.txt`. The stages know nothing of it.
"""

import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML

from hbn.files import HbnError, read_csv, read_json
from hbn.reporting.experiments import SCORES, dotted, value_at
from hbn.reporting.repository import extract, git
from hbn.stage import scratch

try:
    from tensorboard.program import TensorBoard
    from torch.utils.tensorboard import SummaryWriter
except ModuleNotFoundError:
    sys.exit("board.py: TensorBoard is not installed; run `pip install -r requirements-board.txt`")

EVERY_S = 5.0
EXPERIMENT = re.compile(r"(\w+) refs/exps/\w{2}/\w{38}/(.+)")  # DVC has other references as well


class Run:
    """The event files of one run, which follow the plots and metrics of the run."""

    def __init__(self, folder: Path):
        self.folder, self.writer, self.rows, self.scores = folder, SummaryWriter(folder), {}, {}

    def mirror(self, root: Path) -> None:
        """Add the new points and scores in the files below `root` to the event files."""
        for path in sorted((root / "plots").rglob("*.csv")):
            name, rows = path.relative_to(root / "plots").with_suffix("").as_posix(), read_csv(path)
            if not rows or "step" not in rows[0]:
                continue
            n_written = len(self.rows.get(name, []))
            if rows[:n_written] != self.rows.get(name, []):  # the stage was trained anew: drop the points of all curves
                self.writer, self.rows, n_written = SummaryWriter(self.folder, purge_step=0), {}, 0
            for row in rows[n_written:]:
                for column in row.keys() - {"step"}:
                    self.writer.add_scalar(f"{name}/{column}", float(row[column]), int(row["step"]))
            self.rows[name] = rows
        scores = {f"score/{name}": value for name, value in scores_of(root).items() if value is not None}
        if scores and scores != self.scores:
            self.writer.add_hparams(parameters(root / "params.yaml"), scores, run_name=".")
            self.scores = scores
        self.writer.flush()


def scores_of(root: Path) -> dict[str, float | None]:
    """The main scores (SCORES) of a run; None where the run has none yet."""
    return {
        name: value_at(read_json(root / file), key) if (root / file).exists() else None
        for name, (file, key) in SCORES.items()
    }


def parameters(path: Path) -> dict[str, bool | float | str]:
    """The values of a params.yaml by dotted name, lists and sections as text."""
    values = dotted(YAML(typ="safe").load(path))
    return {key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in values.items()}


def places() -> dict[str, Path]:
    """The folder of each run: the workspace, and the running experiments of `dvc exp run --temp` and of the queue."""
    folders = {"workspace": Path()}
    for path in sorted(Path(".dvc/tmp/exps/run").glob("*/*.run")):
        about = read_json(path)
        root = Path(about["root_dir"])
        if root.exists() and root.resolve() != Path().resolve():
            folders[about.get("name") or path.stem[:7]] = root
    return folders


def mirror(runs: dict[str, Run], finished: set[str], board: Path) -> None:
    """Bring the event files of all runs up to date; adds to `runs` (by name) and `finished` (revisions)."""

    def run(name: str) -> Run:
        if name not in runs:
            runs[name] = Run(board / name)
        return runs[name]

    for name, root in places().items():
        run(name).mirror(root)
    for revision, name in EXPERIMENT.findall(git("for-each-ref", "refs/exps", "--format=%(objectname) %(refname)")):
        if revision not in finished:
            with tempfile.TemporaryDirectory() as folder:
                extract(revision, Path(folder), "plots", "metrics", "params.yaml")
                run(name).mirror(Path(folder))
            finished.add(revision)


def main(*options: str) -> None:
    if set(options) - {"--once"}:
        raise HbnError("board.py knows only --once")
    board, runs, finished = scratch() / "board", {}, set()
    shutil.rmtree(board, ignore_errors=True)
    mirror(runs, finished, board)
    if options:
        print(f"{board} is written: tensorboard --logdir {board}")
        return
    server = TensorBoard()
    server.configure(argv=["", "--logdir", str(board)])
    print(f"TensorBoard: {server.launch()} (Ctrl-C ends it)", flush=True)
    while True:
        time.sleep(EVERY_S)
        mirror(runs, finished, board)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except HbnError as error:
        sys.exit(f"board.py: {error}")
    except KeyboardInterrupt:
        pass
