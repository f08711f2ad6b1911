"""Products of releases that are not listed go; nothing else does."""

import pytest

from hbn.data.pruning import prune
from hbn.files import write_json, write_text


@pytest.fixture
def products(workspace):
    """Write what the stages keep of a release; its paths."""

    def write(release):
        for path in (f"raw/{release}/manifest.tsv", f"preprocessed/{release}/rejected.tsv"):
            write_text(workspace / "data" / path, "")
        write_text(workspace / f"data/windows/{release}/recordings.csv", "")
        for stage in ("fetch", "preprocess", "windows"):
            write_json(workspace / f"metrics/{stage}/{release}.json", {"source": "a test"})
        write_text(workspace / f"plots/preprocess/{release}_spectrum.csv", "frequency_hz,before_db,after_db\n")

    return write


def files(workspace):
    return {path.relative_to(workspace).as_posix() for path in workspace.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("listed", "gone"),
    [
        ("R1.5", "R1"),
        ("R1_spectrum", "R1"),
        ("R1", "R1.5"),
        ("R1", "R1_spectrum"),
        ("R1.json", "R1"),
        ("R1", "R1.json"),
    ],
)
def test_names_match_as_a_whole(workspace, products, caplog, listed, gone):
    caplog.set_level("INFO")
    products(listed)
    kept = files(workspace)
    products(gone)
    assert len(files(workspace)) == 2 * len(kept) == 14
    prune([listed])
    assert files(workspace) == kept
    assert len([line for line in caplog.messages if f"data.releases does not list {gone}" in line]) == 7
    assert "stays" not in caplog.text
    assert f"data/raw/{gone} is removed" in caplog.text


def test_what_is_no_product_of_the_pipeline_stays_and_is_told(workspace, products, caplog):
    products("R1")
    own = ["data/raw/notes/manifest.txt", "data/windows/mine.csv", "metrics/fetch/mine.json", "data/raw/.hidden/x"]
    own += ["plots/preprocess/mine.csv", "plots/preprocess/mine_spectrum.csv", "metrics/windows/readme.md"]
    for path in own:
        write_text(workspace / path, "{}")
    write_text(workspace / "elsewhere/manifest.tsv", "")
    (workspace / "data/raw/linked").symlink_to(workspace / "elsewhere")
    before = files(workspace)
    prune(["R1"])
    assert files(workspace) == before
    for name in ("data/raw/notes", "data/raw/linked", "metrics/fetch/mine.json", "mine_spectrum.csv"):
        assert f"{name} is no product of this pipeline and stays" in caplog.text


def test_nothing_to_prune(workspace):
    prune(["R1"])
    assert files(workspace) == set()
