"""Tables: what they say, and that they fit."""

import pytest

from hbn.reporting import tables
from hbn.reporting.experiments import COLUMNS, SCORES


def test_markdown_by_hand():
    text = tables.markdown(("name", "value"), [("a", 0.123456), ("b", None)])
    assert text == "| name | value |\n| --- | --- |\n| a | 0.1235 |\n| b |  |"
    aligned = tables.markdown(("name", "value"), [("a", 0.123456), ("b", None)], aligned=True)
    assert aligned.splitlines()[1:3] == ["| ---  | ---    |", "| a    | 0.1235 |"]
    assert tables.interval({"value": 0.5, "low": 0.25, "high": 1}) == "0.50 (0.25 to 1.00)"
    assert tables.interval({}) == ""


def test_a_terminal_table_by_hand():
    text = tables.terminal(
        ("run", "challenge1.r", "empty", "changed"), [("a", "0.5", None, "x=1"), ("bcde", "0.4", None, "")]
    )
    assert text.splitlines() == [
        "      challenge1.",
        "run   r            changed",
        "a     0.5          x=1",
        "bcde  0.4",
    ]


@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("by", SCORES)
def test_many_long_experiments_fit_and_what_is_hidden_is_named(width, by):
    scores = dict.fromkeys(SCORES, "0.123")
    changed = ", ".join(f"pretrain.learning_rate_{i}=0.000{i}" for i in range(9))
    rows = [
        {"experiment": f"oldfangled-name-{i}", "commit": "0123456", "state": "failed" if i % 3 == 0 else "", **scores}
        | {"changed parameters": changed[: 30 * i]}
        for i in range(40)
    ]
    optional = [name for name in COLUMNS if name in SCORES and name != by]
    text = tables.terminal(COLUMNS, [[row[name] for name in COLUMNS] for row in rows], width, ("commit", *optional))
    *lines, last = text.splitlines()
    assert len(lines) == 2 + 40
    assert max(map(len, lines)) <= width
    hidden = set(last.split(": ")[1].split(", ")) if last.startswith("Not shown") else set()
    assert len(hidden) + len(lines[1].split()) - 1 == len(COLUMNS)  # the last title has two words
    assert by not in hidden
    assert "pretrain.learning" in lines[5]
    assert lines[-1].endswith("…")


def test_nothing_to_show_is_an_empty_table():
    assert tables.terminal(("a", "b"), []) == "\n"
