"""The schema that editors use says what hbn.params says."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

import schema

REPOSITORY = Path(__file__).parents[1]


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
