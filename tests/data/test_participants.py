"""participants.tsv: what is understood, what becomes unknown with a remark, what is refused."""

import pytest

from hbn.data.bids import FACTORS
from hbn.data.participants import parse_participants, read_participants
from hbn.files import HbnError

TABLE = """participant_id\trelease_number\tsex\tage\tp_factor\tattention\tinternalizing\texternalizing
sub-A1\tR1\tF\t11.3386\t-0.6779999999999999\t-0.446\t1.248\t0.325
sub-B2\tR1\tM\t19.3\tn/a\tn/a\tn/a\tn/a
sub-C3\tR1\tn/a\tn/a\t0\t0\t0\t0
"""


def rows(*changes: dict) -> list[dict]:
    """A good row for each, changed."""
    good = {"participant_id": "sub-A", "sex": "F", "age": "9.5", **dict.fromkeys(FACTORS, "0.25")}
    return [good | changed for changed in changes]


def parsed(*changes: dict):
    """The participants sub-A and sub-B, and the remarks."""
    return parse_participants(rows(*changes), "the table", "R1", ["sub-A", "sub-B"])


def test_participants(tmp_path):
    (tmp_path / "participants.tsv").write_text(TABLE)
    first, adult, unknown = read_participants(tmp_path, "R1")
    assert (first.sex, first.age_years, adult.factors) == ("F", 11.3386, None)
    assert (unknown.sex, unknown.age_years) == (None, None)
    assert first.factors["p_factor"] == pytest.approx(-0.678)
    assert read_participants(tmp_path, "R1", {"sub-B2"}) == [adult]


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        *(("sex", text, text.strip()) for text in ("M", "F", " M ")),
        *(("age", text, 9.5) for text in ("9.5", " 9.50", "+9.5", "95e-1")),
        *(("age", text, None) for text in ("n/a", " n/a")),
        ("sex", "n/a", None),
    ],
)
def test_what_is_as_hbn_writes_it_is_understood_without_a_word(column, text, value):
    [one], remarks = parsed({column: text})
    assert {"sex": one.sex, "age": one.age_years}[column] == value
    assert remarks == []


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [("sex", "male", "M"), ("sex", "MALE", "M"), ("sex", "m", "M"), ("sex", "Female", "F"), ("age", "9,5", 9.5)],
)
def test_what_means_one_thing_only_is_taken_for_it_and_named(column, text, value):
    [one], [remark] = parsed({column: text})
    assert {"sex": one.sex, "age": one.age_years}[column] == value
    assert remark == f"the table, column {column}: {text!r} of sub-A is taken for {value}"


@pytest.mark.parametrize(
    ("column", "text"),
    [
        *(("sex", text) for text in ("O", "other", "1", "NaN", "", "diverse")),
        *(
            ("age", text)
            for text in ("89+", "18-38", "NaN", "", "inf", "-3", "1e3", "nine", "9 years", "1_0", "1.000,5")
        ),
        *((factor, text) for factor in FACTORS for text in ("high", "nan", "")),
    ],
)
def test_what_is_not_plain_is_unknown_and_named(column, text):
    [one], [remark] = parsed({column: text})
    known = {"sex": one.sex, "age": one.age_years} | dict.fromkeys(FACTORS, one.factors)
    assert known.pop(column) is None
    if column in FACTORS:
        assert (one.sex, one.age_years) == ("F", 9.5)
    else:
        assert None not in known.values()
    assert remark == f"the table, column {column}: {text!r} of sub-A is not understood and counts as unknown"


def test_only_those_who_are_used_matter():
    odd = {"participant_id": "sub-X", "sex": "O", "age": "89+", "p_factor": "?"}
    people, remarks = parsed({}, odd, odd, {"participant_id": "another one"}, {"participant_id": ""})
    assert [one.participant_id for one in people] == ["sub-A"]
    assert remarks == []


def test_an_id_of_a_used_participant_that_stands_twice_is_refused():
    with pytest.raises(HbnError, match="the table: sub-B stands twice in the column participant_id"):
        parsed({}, {"participant_id": "sub-B"}, {"participant_id": " sub-B ", "age": "12"})


def test_columns_in_other_case_are_read_and_absent_ones_named():
    table = [{name.title().replace("_Id", "_ID"): cell for name, cell in row.items()} for row in rows({})]
    assert "Participant_ID" in table[0]
    assert parse_participants(table, "the table", "R1", ["sub-A"]) == parsed({})
    without = [{name: cell for name, cell in row.items() if name != "p_factor"} for row in rows({})]
    [one], remarks = parse_participants(without, "the table", "R1", ["sub-A"])
    assert (one.sex, one.factors) == ("F", None)
    assert remarks == ["the table has no column p_factor: it counts as unknown for everyone"]
    with pytest.raises(HbnError, match="the table has no column participant_id; it has id"):
        parse_participants([{"id": "sub-A"}], "the table", "R1", ["sub-A"])


def test_many_with_the_same_flaw_are_one_remark():
    changes = [{"participant_id": f"sub-{i}", "sex": "O"} for i in range(9)]
    _, remarks = parse_participants(rows(*changes), "the table", "R1", [f"sub-{i}" for i in range(9)])
    [remark] = remarks
    assert "'O' of sub-0, sub-1, sub-2 and 6 more is" in remark


def test_a_short_row_has_empty_cells(tmp_path):
    (tmp_path / "participants.tsv").write_text("participant_id\tsex\tage\nsub-A\tM\n")
    [one] = read_participants(tmp_path, "R1")
    assert (one.sex, one.age_years) == ("M", None)


def test_real_participants(hbn_metadata):
    """136 rows, 46 F, and four adults without factors: counted with cut, sort and uniq."""
    people = read_participants(hbn_metadata / "R1", "R1")
    assert len(people) == 136
    assert sum(one.sex == "F" for one in people) == 46
    assert [one.age_years >= 18 for one in people] == [one.factors is None for one in people]
    assert sum(one.factors is None for one in people) == 4
