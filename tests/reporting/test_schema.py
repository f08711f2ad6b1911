"""The schema that editors and the completion of bash use says what hbn.params says."""

import json
import os
import pty
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from clone import REPOSITORY
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

import schema


@pytest.fixture
def problems():
    """Messages of the schema in git on params.yaml with {'section.key': value} changed."""
    content = json.loads((REPOSITORY / "params.schema.json").read_text())
    Draft202012Validator.check_schema(content)

    def check(changes):
        params = YAML(typ="safe").load(REPOSITORY / "params.yaml")
        for name, value in changes.items():
            section, key = name.split(".")
            params[section][key] = value
        return [error.message for error in Draft202012Validator(content).iter_errors(params)]

    return check


def test_params_yaml_names_it_and_passes(problems):
    first = (REPOSITORY / "params.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=params.schema.json"
    assert problems({}) == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pretrain.learning_rte", 0.1, "'learning_rte' was unexpected"),
        ("model.size", "huge", "'huge' is not one of"),
        ("pretrain.steps", 0, "0 is less than the minimum of 1"),
        ("data.url", "simulated://R1", "does not match"),
    ],
)
def test_it_refuses(problems, key, value, message):
    (problem,) = problems({key: value})
    assert message in problem


def test_it_is_up_to_date(tmp_path):
    schema.main(str(REPOSITORY / "params.yaml"), str(tmp_path / "schema.json"))
    assert (tmp_path / "schema.json").read_text() == (REPOSITORY / "params.schema.json").read_text(), "`make schema`"


def test_it_explains_keys_with_the_comments():
    properties = schema.schema((REPOSITORY / "params.yaml").read_text())["$defs"]["Challenge1"]["properties"]
    assert properties["jitter_s"]["description"].startswith("Training windows start up to this much")
    assert properties["patience"]["description"].startswith("Validations without a better loss")


@pytest.fixture
def bash(tmp_path):
    """Types a line and TAB into an interactive bash with completion.bash, and returns what then stands there."""
    for name in ("completion.bash", "params.yaml", "params.schema.json", "Makefile"):
        shutil.copy(REPOSITORY / name, tmp_path)
    terminal, inner = pty.openpty()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PS1": "READY> ", "TERM": "dumb", "INPUTRC": "/dev/null", "DVC_NO_ANALYTICS": "1"}
    options = {"cwd": tmp_path, "env": {"PATH": path, **own}}
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), inner)
    process = subprocess.Popen(["bash", "--norc", "--noprofile", "-i"], start_new_session=True, **options, **streams)
    os.close(inner)

    def say(text: str, answer: str = "\nREADY> ") -> None:
        os.write(terminal, text.encode())
        seen = ""
        while not seen.endswith(answer):
            assert select.select([terminal], [], [], 60)[0], f"no prompt after {seen!r}"
            seen += os.read(terminal, 1000).decode()

    def complete(text: str) -> str:
        begin, end = "\x01", "\x05"  # of the line: Ctrl-A, Ctrl-E
        say(f"{text}\t{begin}echo {end} > typed\n")
        return (tmp_path / "typed").read_text().strip()

    say("", "READY> ")  # else what is typed before bash reads would stand before its first prompt
    say("source completion.bash\n")
    yield complete
    os.close(terminal)
    process.wait()


def test_tab_completes_parameters_their_values_and_targets(bash):
    assert bash("dvc exp ru") == "dvc exp run"  # what dvc completes itself
    assert bash("dvc exp run -S model.si") == "dvc exp run -S model.size="
    assert bash("dvc exp run --queue -S model.size=ti") == "dvc exp run --queue -S model.size=tiny"
    assert bash("dvc exp run -S 'model.size=ti") == "dvc exp run -S model.size=tiny"
    steps = YAML(typ="safe").load(REPOSITORY / "params.yaml")["pretrain"]["steps"]
    assert bash("dvc exp run -S pretrain.steps=") == f"dvc exp run -S pretrain.steps={steps}"
    assert bash("make rep") == "make rep"  # repro or report
    assert bash("make repo") == "make report"
