"""A clone of the working tree in which tests run the real `dvc`, on a miniature cohort."""

import copy
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from ruamel.yaml import YAML

REPOSITORY = Path(__file__).parents[1]
MINIATURE = {
    **{"data.releases": ["R1", "R5"], "data.n_participants": 3, "data.tasks": ["contrastChangeDetection_1"]},
    **{"simulator.sfreq_hz": 100, "simulator.file_format": "bdf", "preprocess.sfreq_hz": 100},
    **{"splits.validation_fraction": 0.5, "pretrain.steps": 6, "pretrain.validate_every": 3},
    **{"pretrain.excluded_tasks": []},  # there is no other task
    **{"challenge1.steps": 6, "challenge1.validate_every": 3, "scores.n_bootstrap": 100},
    **{"quantize.variants": ["fused", "int8_dynamic"], "benchmark.n_runs": 10, "benchmark.warmup_runs": 2},
    **{"benchmark.batch_sizes": [1], "exec.threads": 1, "exec.workers": 1},
}
# Wall-clock timings: the only files that differ between two builds.
TIMINGS = {"metrics/benchmark.json", *(f"plots/benchmark_{name}.csv" for name in ("latency", "accuracy", "profile"))}


class Clone:
    """A fresh clone of the working tree, with its own DVC caches."""

    def __init__(self, root: Path, changes: dict):
        self.root = root
        names = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=REPOSITORY, check=True, capture_output=True, text=True,
        ).stdout.split()  # fmt: skip
        for name in names:
            if name != "dvc.lock" and not name.startswith(("metrics/", "plots/")) and (REPOSITORY / name).exists():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, root / name)
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "GIT_"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_SITE_CACHE_DIR": str(root.parent / "site-cache"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **{
                f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
            },
        }
        self.change(changes)
        self("git", "init", "-q", "-b", "main")
        self.commit("start")

    def __call__(self, *command: str, status: int = 0) -> str:
        done = subprocess.run(command, cwd=self.root, env=self.environment, capture_output=True, text=True)
        assert done.returncode == status, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def change(self, changes: dict) -> None:
        yaml = YAML()
        content = yaml.load(self.root / "params.yaml")
        for key, value in changes.items():
            section, name = key.split(".")
            assert name in content[section], key
            content[section][name] = value
        yaml.dump(content, self.root / "params.yaml")

    def commit(self, message: str) -> None:
        self("git", "add", "-A")
        self("git", "commit", "-q", "-m", message)

    def metrics(self, name: str) -> dict:
        return json.loads((self.root / f"metrics/{name}.json").read_text())

    def restore(self) -> None:
        """Put the workspace back to the last commit."""
        self("git", "reset", "-q", "--hard")
        self("git", "clean", "-qfd", "metrics", "plots")
        self("dvc", "checkout", "-q")

    def build(self) -> None:
        """Run and commit the whole pipeline, noting in `duration_s` how long each stage took."""
        begin, self.duration_s = {}, {}
        dvc = self.start("dvc", "repro")
        output = []
        for line in dvc.stdout:
            output.append(line)
            if line.startswith("Running stage"):
                begin[line.split("'")[1]] = time.monotonic()
            elif line.startswith("Updating lock"):
                stage = list(begin)[-1]
                self.duration_s[stage] = time.monotonic() - begin[stage]
        assert dvc.wait() == 0, "".join(output)
        self.commit("first results")

    def start(self, *command: str, **options) -> subprocess.Popen:
        """Start a command in a process group of its own, its output unbuffered."""
        environment = {**self.environment, "PYTHONUNBUFFERED": "1"}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=self.root, env=environment, start_new_session=True, **streams, **options)

    def start_queue(self, *options: str) -> None:
        """`dvc queue start`. Its workers keep its standard output: to wait for that is to wait for them."""
        nowhere = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
        subprocess.run(["dvc", "queue", "start", *options], cwd=self.root, env=self.environment, check=True, **nowhere)

    def copy(self, root: Path) -> "Clone":
        """A copy with DVC caches of its own."""
        subprocess.run(["cp", "-a", str(self.root), str(root)], check=True)
        other = copy.copy(self)
        other.root = root
        other.environment = {**self.environment, "DVC_SITE_CACHE_DIR": str(root.parent / "site-cache")}
        return other

    def ran(self, output: str) -> set[str]:
        """Names of the stages that a `dvc repro` or `dvc exp run` really ran."""
        lines = [line for line in output.splitlines() if line.startswith("Running stage")]
        return {line.split("'")[1].split("@")[0] for line in lines}


def finite(value) -> bool:
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    return not isinstance(value, float) or abs(value) < float("inf")
