"""A wrong params.yaml is refused with the key, the value and what is allowed."""

import difflib
import shutil

import pytest
from clone import REPOSITORY
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from hbn import params
from hbn.files import HbnError
from hbn.stage import view


@pytest.fixture
def changed(tmp_path):
    """Write params.yaml with changes given as {'section.key': value}; returns its path."""

    def write(changes):
        content = YAML(typ="safe").load(REPOSITORY / "params.yaml")
        for key, value in changes.items():
            section, name = key.split(".")
            content[section][name] = value
        YAML().dump(content, tmp_path / "params.yaml")
        return tmp_path / "params.yaml"

    return write


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pretrain.learning_rte", 0.1, "pretrain.learning_rte: unknown key; did you mean 'learning_rate'?"),
        ("pretrain.learning_rate", "abc", "pretrain.learning_rate: 'abc' is not allowed, it should be a valid number"),
        ("pretrain.learning_rate", -1.0, "pretrain.learning_rate: -1.0 is not allowed, it should be greater than 0"),
        ("pretrain.steps", 1.5, "pretrain.steps: 1.5 is not allowed, it should be a valid integer"),
        ("pretrain.steps", True, "pretrain.steps: True is not allowed"),
        ("model.size", "huge", "model.size: 'huge' is not allowed, it should be 'tiny', 'small', 'base' or 'large'"),
        ("data.url", "/data/hbn", r"data.url: '/data/hbn' is not allowed, it should match ^$|\{release\}"),
        ("data.url", "data/../data/raw/{release}", "is in data/raw, which fetch empties; move it somewhere else"),
        ("data.url", f"{REPOSITORY}/data/raw/{{release}}/mine", "/mine is in data/raw, which fetch empties"),
        ("simulator.metadata_dir", "data/raw", "simulator.metadata_dir: data/raw/R1 is in data/raw"),
        ("data.releases", [], "data.releases: [] is not allowed"),
        ("data.releases", ["R5", "R5"], "data.releases: the same name stands twice"),
        ("data.releases", ["../R5"], "data.releases.0: '../R5' is not allowed"),
        ("splits.test_releases", ["R9"], "splits.test_releases names ['R9'], which data.releases does not"),
        ("windows.window_s", 5.0, "preprocess.min_duration_s is 4, less than windows.window_s (5)"),
        ("preprocess.lowpass_hz", 300.0, "preprocess: needs highpass_hz < lowpass_hz < sfreq_hz / 2"),
    ],
)
def test_refusals(changed, key, value, message, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(HbnError) as error:
        params.load(changed({key: value}))
    assert message in str(error.value)


def test_all_problems_are_named_at_once(changed):
    with pytest.raises(HbnError) as error:
        params.load(changed({"pretrain.steps": 0, "exec.device": "tpu"}))
    assert "pretrain.steps" in str(error.value)
    assert "exec.device" in str(error.value)


def test_scientific_notation_is_a_number_as_dvc_writes_it(tmp_path, changed):
    path = changed({})
    text = path.read_text()
    old = next(line for line in text.splitlines() if "learning_rate" in line)
    path.write_text(text.replace(old, "  learning_rate: 1e-05", 1))
    assert params.load(path).pretrain.learning_rate == 1e-5


def test_missing_section_and_broken_yaml(tmp_path):
    (tmp_path / "params.yaml").write_text("data: {}\n")
    with pytest.raises(HbnError, match="simulator: missing"):
        params.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("data: [\n")
    with pytest.raises(HbnError, match="not valid YAML"):
        params.load(tmp_path / "params.yaml")


def test_a_stage_sees_only_what_it_declares():
    seen = view(params.load(REPOSITORY / "params.yaml"), ("data.preset", "model"))
    assert seen.model.size
    assert seen.data.preset
    with pytest.raises(AttributeError):
        _ = seen.data.releases
    with pytest.raises(AttributeError):
        _ = seen.pretrain


@pytest.mark.parametrize("override", ["challenge2.n_regions=16", "data.releases=[R1,R4]", "quantize.variants=[fp32]"])
def test_an_experiment_keeps_the_comments_of_params_yaml(override, tmp_path):
    """`dvc exp run -S` writes the file anew, and drops a comment in the line after a list."""
    path = tmp_path / "params.yaml"
    shutil.copy(REPOSITORY / "params.yaml", path)
    before = path.read_text().splitlines()
    apply_overrides(path, [override])
    after = path.read_text().splitlines()
    changed = [line for line in difflib.ndiff(before, after) if line[:2] in ("- ", "+ ")]
    name = override.partition("=")[0].partition(".")[2]
    assert all(line[2:].startswith((f"  {name}:", "  - ")) for line in changed), changed
    assert changed
