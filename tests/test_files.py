"""Atomic writes, reviewable numbers and the scratch store."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from hbn import files


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    files.write_text(path, "old")

    def fails_midway():
        with files.atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk"):
        fails_midway()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_a_full_disk_is_called_so(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(files.HbnError, match=r"disk is full.*make room"), files.atomic(tmp_path / "x.pt"):
        raise RuntimeError("file write failed")  # as torch.save says it
    assert os.listdir(tmp_path) == []


def test_a_read_only_hardlink_is_replaced_not_written_through(tmp_path):
    cached = tmp_path / "cached"
    cached.write_text("cached")
    cached.chmod(0o444)
    os.link(cached, tmp_path / "out")
    files.write_text(tmp_path / "out", "new")
    assert cached.read_text() == "cached"


def test_linking_a_file_to_where_it_is_already_linked_leaves_no_other_name(tmp_path):
    (tmp_path / "one").write_text("content")
    for _ in range(2):  # the second is what a job does whose first worker was lost after it had finished
        files.link(tmp_path / "one", tmp_path / "links" / "two")
    assert os.listdir(tmp_path / "links") == ["two"]
    assert (tmp_path / "links" / "two").samefile(tmp_path / "one")


def test_json_is_sorted_rounded_and_refuses_nan(tmp_path):
    files.write_json(tmp_path / "m.json", {"b": 1 / 3, "a": [2, 1234567.891]})
    assert (tmp_path / "m.json").read_text() == '{\n  "a": [\n    2,\n    1234570.0\n  ],\n  "b": 0.333333\n}\n'
    with pytest.raises(ValueError, match="not finite"):
        files.write_json(tmp_path / "m.json", {"a": float("nan")})
    for odd in ("[" * 200_000, "{", "[]", ""):
        (tmp_path / "odd.json").write_text(odd)
        with pytest.raises(files.HbnError, match=r"odd\.json"):
            files.read_json(tmp_path / "odd.json")


@pytest.mark.parametrize(
    ("line", "cells"),
    [
        ('"left handed\tx\ty', ['"left handed', "x", "y"]),  # an open quotation mark does not swallow what follows
        ('"left\thanded"\tx\ty', ["left\thanded", "x", "y"]),
        ('x\t"a ""b"" c"\t"', ["x", 'a "b" c', '"']),
        ('"a\tb\t"c"', ['"a', "b", "c"]),
        ('24"\t""\t " y" ', ['24"', "", '" y"']),
        ("x\ty", ["x", "y", None]),
        ("x\ty\t", ["x", "y", ""]),
    ],
)
def test_quotation_marks_of_a_row_that_another_program_wrote(tmp_path, line, cells):
    (tmp_path / "t.tsv").write_text(f"a\tb \tc\n{line}\n1\t2\t3\n")
    first, second = files.read_tsv(tmp_path / "t.tsv")
    assert first == dict(zip("abc", cells, strict=True))
    assert second == {"a": "1", "b": "2", "c": "3"}


def test_a_line_break_within_a_cell_keeps_the_rows_of_a_table(tmp_path):
    rows = [{"a": 'first\r\nsecond "x"', "b": "1"}, {"a": "n/a", "b": "2"}]
    files.write_tsv(tmp_path / "t.tsv", rows, ["a", "b"])
    assert files.read_tsv(tmp_path / "t.tsv") == [{"a": 'first second "x"', "b": "1"}, rows[1]]


def test_tables_round_trip_with_missing_values(tmp_path):
    rows = [{"a": "x\ty", "b": None}, {"a": "é", "b": 0.1}]
    files.write_tsv(tmp_path / "t.tsv", rows, ["a", "b"])
    assert files.read_tsv(tmp_path / "t.tsv") == [{"a": "x\ty", "b": "n/a"}, {"a": "é", "b": "0.1"}]
    files.write_csv(tmp_path / "t.csv", rows, ["b"])
    assert files.read_csv(tmp_path / "t.csv") == [{"b": ""}, {"b": "0.1"}]


def test_missing_input_names_the_stage_that_makes_it(tmp_path):
    with pytest.raises(files.HbnError, match=r"encoder\.pt does not exist; run `dvc repro pretrain`"):
        files.existing(tmp_path / "encoder.pt", made_by="pretrain")


def test_store_returns_what_was_put_and_forgets_what_was_used_longest_ago(tmp_path):
    store = files.Store(tmp_path / "store")
    for i, key in enumerate(("aa1", "bb2", "cc3")):
        (tmp_path / "made").write_bytes(bytes([i]) * 1000)
        store.put(key, tmp_path / "made")
        (tmp_path / "made").unlink()
        time.sleep(0.02)
    assert store.fetch("aa1", tmp_path / "used")
    (tmp_path / "used").unlink()
    store.trim(max_gb=2e-6)
    assert not store.fetch("bb2", tmp_path / "out")
    assert store.fetch("cc3", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"\x02" * 1000
    assert store.fetch("aa1", tmp_path / "out")
    store.trim(max_gb=1e-9)
    assert [store.has(key) for key in ("aa1", "bb2", "cc3")] == [True, False, False]  # that in use takes no room


def test_experiments_side_by_side_share_a_store(tmp_path):
    """One trims what others are writing and reading."""
    store = files.Store(tmp_path / "store")

    def work(name: str) -> None:
        for _ in range(300):
            (tmp_path / name).write_text(name)
            store.put("aa1", tmp_path / name)
            (tmp_path / name).unlink()
            if store.fetch("aa1", tmp_path / f"{name}.out"):
                (tmp_path / f"{name}.out").unlink()

    with ThreadPoolExecutor() as pool:
        working = [pool.submit(work, name) for name in ("x", "y")]
        while not all(one.done() for one in working):
            store.trim(max_gb=0)
    assert [one.result() for one in working] == [None, None]
