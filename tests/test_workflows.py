"""The workflows call what the repository has."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from clone import REPOSITORY
from ruamel.yaml import YAML
from test_requirements import PROJECT, PYTHONS

WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))


def commands(path: Path) -> list[str]:
    jobs = YAML(typ="safe").load(path)["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def test_ci_runs_the_oldest_and_the_newest_python_of_the_lock():
    jobs = YAML(typ="safe").load(REPOSITORY / ".github/workflows/ci.yml")["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == [PYTHONS[0], PYTHONS[-1]]
    assert PROJECT["project"]["requires-python"] == f">={PYTHONS[0]}"
    assert f"--python-version {PYTHONS[0]} " in (REPOSITORY / "lock.sh").read_text()


def test_hooks_run_tools_of_the_environment():
    """A commit needs no network, and checks what `make lint` checks."""
    (repo,) = YAML(typ="safe").load(REPOSITORY / ".pre-commit-config.yaml")["repos"]
    assert repo["repo"] == "local"
    tools = [hook["entry"].split()[0] for hook in repo["hooks"]]
    assert {Path(tool).parent.as_posix() for tool in tools} == {".venv/bin"}
    lint = (REPOSITORY / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    assert {"ruff", "ty", "codespell"} <= {Path(tool).name for tool in tools} & set(re.findall(r"[a-z]+", lint))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_they_run_targets_and_scripts_that_exist(path):
    text = "\n".join(commands(path))
    targets = re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"\bmake ([a-z]+)", text)) <= set(targets)
    for script in re.findall(r"python (\S+\.py)|^(\.ci/\S+)", text, re.MULTILINE):
        script = "".join(script)
        assert (REPOSITORY / script).exists(), script
    for command in commands(path):
        subprocess.run(["bash", "-n", "-c", command], check=True)
        assert "${{" not in command  # what others wrote (names of branches) reaches a shell by variables only


def test_the_report_needs_no_more_than_the_review_installs():
    (install,) = [line for line in commands(REPOSITORY / ".github/workflows/review.yml") if "pip install" in line]
    packages = install.partition(" --constraint requirements.txt ")[2].split()
    assert set(packages) == {"dvc", "matplotlib", "numpy", "ruamel.yaml"}
    code = "import sys; sys.path.insert(0, 'src'); import report; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    assert not {"torch", "mne", "pydantic", "sklearn", "onnx"} & set(done.stdout.split())


def test_the_comment_has_no_broken_images(tmp_path):
    (tmp_path / "report.md").write_text("# Title\n![a](report/a.png)\ntext\n")
    (show,) = [
        command
        for command in commands(REPOSITORY / ".github/workflows/review.yml")
        if "comment.md" in command and "grep" in command
    ]
    environment = {"PATH": "/usr/bin:/bin", "RUN": "https://example.org/run", "GITHUB_STEP_SUMMARY": "summary.md"}
    subprocess.run(["bash", "-euo", "pipefail", "-c", show], cwd=tmp_path, env=environment, check=True)
    expected = "# Title\ntext\n[The report with its images](https://example.org/run#artifacts)\n"
    assert (tmp_path / "comment.md").read_text() == (tmp_path / "summary.md").read_text() == expected


def test_one_version_everywhere():
    version = PROJECT["project"]["version"]
    assert YAML(typ="safe").load(REPOSITORY / "CITATION.cff")["version"] == version
    assert re.search(rf"^## {re.escape(version)} - \d{{4}}-\d\d-\d\d$", (REPOSITORY / "CHANGELOG.md").read_text(), re.M)
