"""Fetching: exactly the selected files, verified, resumable, whatever the source says."""

import shutil
import threading
from collections import Counter
from types import SimpleNamespace

import pytest
from joblib.externals.loky import get_reusable_executor

import fetch
from hbn import params, stage
from hbn.data.bids import Recording
from hbn.data.manifest import OWN_FILES
from hbn.files import HbnError, md5, read_json, read_tsv, sha256
from hbn.sources import folder, plan, simulated
from hbn.sources.transfer import CHECKSUMS

QUICK = {"sfreq_hz": 100, "lead_in_s": 4.0}


@pytest.fixture
def settings(monkeypatch, tmp_path, threads_end):
    """Parameters of the stage with few, short recordings; the current folder is empty."""
    everything = params.load()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)

    def make(n_participants=2, tasks=("RestingState",), **data):
        data = {"tasks": list(tasks), "n_participants": n_participants, **data}
        changed = everything.model_copy(
            update={
                "data": everything.data.model_copy(update=data),
                "simulator": everything.simulator.model_copy(update=QUICK),
                "exec": everything.exec.model_copy(update={"workers": 1}),
            }
        )
        return stage.view(changed, ("data", "simulator", "exec"))

    return make


def tree(root) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): sha256(path) for path in root.rglob("*") if path.is_file()}


def test_the_manifest_is_true_and_adding_a_participant_changes_nothing_else(settings, tmp_path, monkeypatch):
    fetch.main(settings(2), "R1")
    few = tree(tmp_path / "data/raw/R1")
    manifest = {row["path"]: row["md5"] for row in read_tsv(tmp_path / "data/raw/R1/manifest.tsv")}
    assert manifest == {path: md5(tmp_path / "data/raw/R1" / path) for path in few if path not in OWN_FILES}
    assert {path for path in few if path.startswith("task-")} == {"task-RestingState_eeg.json"}  # what was chosen

    written = []
    write = simulated.SimulatedSource.write
    monkeypatch.setattr(
        simulated.SimulatedSource, "write", lambda self, path, *to: (written.append(path), write(self, path, *to))[1]
    )
    fetch.main(settings(3), "R1")
    more = tree(tmp_path / "data/raw/R1")
    assert {path: sha for path, sha in few.items() if path not in OWN_FILES}.items() <= more.items()
    assert len({path.split("/")[0] for path in written}) == 1  # only the new participant was made
    fetch.main(settings(2), "R1")
    assert tree(tmp_path / "data/raw/R1") == few
    assert read_json(tmp_path / "metrics/fetch/R1.json")["participants"] == 2


def test_an_interrupted_fetch_leaves_no_half_file_and_goes_on(settings, tmp_path, monkeypatch):
    write, calls = simulated.SimulatedSource.write, []

    def breaks(self, path, destination, *told):
        calls.append(path)
        if len(calls) == 9:
            destination.write_bytes(b"half")
            raise ConnectionError("lost")
        write(self, path, destination, *told)

    with monkeypatch.context() as patch:
        patch.setattr(simulated.SimulatedSource, "write", breaks)
        with pytest.raises(ConnectionError):
            fetch.main(settings(2), "R1")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"half"]
    calls.clear()
    monkeypatch.setattr(simulated.SimulatedSource, "write", lambda *a: (calls.append(a[1]), write(*a))[1])
    fetch.main(settings(2), "R1")
    assert len(calls) == len(tree(tmp_path / "data/raw/R1")) - len(OWN_FILES) - 8  # eight files were already there


def test_after_an_error_no_other_file_is_begun(settings, tmp_path, monkeypatch, threads_end):
    fetch.main(settings(2), "R1")
    (tmp_path / "data/raw/R1").rename(tmp_path / "source")
    begun, raised, write = [], threading.Event(), folder.FolderSource.write

    def failing(self, path, *to):
        if threading.current_thread() is not threading.main_thread():
            begun.append(path)
            if len(begun) == 1:
                raise HbnError("no such luck")
            raised.wait(20)
        return write(self, path, *to)

    monkeypatch.setattr(folder.FolderSource, "write", failing)
    p = settings(2, url=str(tmp_path / "source"))
    p.exec = p.exec.model_copy(update={"transfers": 3})
    with pytest.raises(HbnError, match="no such luck"):
        fetch.main(p, "R1")
    raised.set()
    threads_end()
    assert len(begun) <= 3  # one for each thread


def test_damage_in_the_scratch_store_is_noticed_by_the_recorded_checksum(settings, tmp_path, caplog, monkeypatch):
    fetch.main(settings(1), "R1")
    right = tree(tmp_path / "data/raw/R1")
    victim = max((tmp_path / ".scratch/raw").glob("*/*"), key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[1000] ^= 1
    victim.write_bytes(content)
    with open(tmp_path / ".scratch" / CHECKSUMS, "a") as record:
        record.write("half a li")  # as the loss of power may leave it
    with monkeypatch.context() as patch:
        patch.setattr(simulated.SimulatedSource, "write", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fetch.main(settings(1), "R1")
    assert tree(tmp_path / "data/raw/R1").items() <= right.items()  # nothing damaged has its final name
    fetch.main(settings(1), "R1")
    assert "the scratch store is damaged" in caplog.text
    assert tree(tmp_path / "data/raw/R1") == right


def test_a_local_folder_gives_the_same_files_as_its_source(settings, tmp_path):
    fetch.main(settings(3), "R1")
    (tmp_path / "data/raw/R1").rename(tmp_path / "R1")
    fetch.main(settings(0, url=str(tmp_path) + "/{release}"), "R1")
    (tmp_path / "R1/selection.tsv").unlink()  # names n_participants
    (tmp_path / "data/raw/R1/selection.tsv").unlink()
    assert tree(tmp_path / "R1") == tree(tmp_path / "data/raw/R1")
    assert read_json(tmp_path / "metrics/fetch/R1.json")["source"] == f"{tmp_path}/{{release}}"


def test_a_local_folder_whose_participants_are_links_elsewhere(settings, tmp_path):
    fetch.main(settings(2), "R1")
    (tmp_path / "data/raw/R1").rename(tmp_path / "R1")
    made = tree(tmp_path / "R1")
    (tmp_path / "elsewhere").mkdir()
    for person in list((tmp_path / "R1").glob("sub-*")):
        person.rename(tmp_path / "elsewhere" / person.name)
        person.symlink_to(tmp_path / "elsewhere" / person.name)
    fetch.main(settings(2, url=str(tmp_path) + "/{release}"), "R1")
    found = tree(tmp_path / "data/raw/R1")
    assert found.pop("selection.tsv") != made.pop("selection.tsv")  # of two participants, not of all the simulated
    assert found == made


@pytest.mark.parametrize("release", ["", ".", "..", "R1/..", "--estimate"])
def test_what_is_no_release_deletes_nothing(settings, tmp_path, release):
    (tmp_path / "data/raw/R1").mkdir(parents=True)
    with pytest.raises(HbnError, match="is no release"):
        fetch.main(settings(), release)
    assert (tmp_path / "data/raw/R1").is_dir()


def test_availability_is_not_trusted(settings, tmp_path):
    listing = plan.sort_paths(
        [
            "participants.tsv",
            "sub-B/eeg/sub-B_task-RestingState_eeg.set",
            "sub-A/eeg/sub-A_task-RestingState_events.tsv",
        ]
    )
    assert listing.common == ["participants.tsv"]
    assert list(listing.recordings) == [Recording("sub-B", "RestingState", None)]  # sub-A has no signal
    table = [{"participant_id": "sub-A"}, {"participant_id": "sub-B"}]
    data = SimpleNamespace(tasks=["RestingState"], n_participants=0, participants=[], select="by_id")
    made = plan.make_plan("R1", data, listing, table)
    rows = {row["participant_id"]: (row["chosen"], row["reason"]) for row in made.selection}
    assert rows == {"sub-A": ("no", "no recording of data.tasks"), "sub-B": ("yes", "number 1 of 1, by_id")}


def test_selection_by_id_balanced_and_named(settings, tmp_path):
    def chosen(**data):
        fetch.main(settings(**data), "R1")
        return [r["participant_id"] for r in read_tsv(tmp_path / "data/raw/R1/selection.tsv") if r["chosen"] == "yes"]

    first = chosen(n_participants=4)
    assert first == sorted(first)
    people = {row["participant_id"]: row for row in read_tsv(tmp_path / "data/raw/R1/participants.tsv")}
    equal = chosen(n_participants=4, select="balanced")
    assert Counter(people[name]["sex"] for name in equal) == {"F": 2, "M": 2}
    assert set(chosen(n_participants=3, select="balanced")) < set(equal)
    assert chosen(participants=[equal[0], "sub-NOBODY"]) == [equal[0]]
    reasons = {row["reason"] for row in read_tsv(tmp_path / "data/raw/R1/selection.tsv")}
    assert reasons <= {
        *("named in data.participants", "not named in data.participants"),
        *("no recording of data.tasks", "not in participants.tsv"),
    }


@pytest.mark.parametrize("kind", ["symlink", "pointer", "one byte"])
def test_a_placeholder_is_recognised_by_its_content(settings, tmp_path, kind):
    fetch.main(settings(1), "R1")
    (tmp_path / "data/raw/R1").rename(tmp_path / "R1")
    recording = next((tmp_path / "R1").glob("sub-*/eeg/*.set"))
    recording.unlink()
    pointer = "../../.git/annex/objects/4k/JM/MD5E-s1--1.set"
    if kind == "symlink":
        recording.symlink_to(pointer)
    else:
        recording.write_text(pointer if kind == "pointer" else "x")
    with pytest.raises(HbnError, match=r"R1/sub-.*_eeg.set is a placeholder.*`datalad get sub-"):
        fetch.main(settings(1, url=str(tmp_path) + "/{release}"), "R1")


def test_estimate_transfers_nothing(settings, tmp_path, caplog):
    caplog.set_level("INFO")
    fetch.main(settings(2), "R1", "--estimate")
    assert "2 participants" in caplog.text
    assert not (tmp_path / "data").exists()
    with pytest.raises(HbnError, match="does not know --dry"):
        fetch.main(settings(2), "R1", "--dry")


def test_a_full_disk_is_refused_before_any_transfer(settings, tmp_path, monkeypatch):
    fetch.main(settings(1), "R1")
    (tmp_path / "data/raw/R1").rename(tmp_path / "R1")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**9))
    with pytest.raises(HbnError, match=r"the disk has 1\.0 GB free"):
        fetch.main(settings(1, url=str(tmp_path) + "/{release}"), "R1")


@pytest.mark.parametrize(
    "path",
    [
        "../evil.tsv",
        "/etc/passwd",
        "sub-A/eeg/../../../x_task-T_eeg.set",
        "sub-A/eeg/sub-B_task-RestingState_eeg.set",
        "sub-A/eeg/sub-A_task-T_run-1_eeg.set/x",
        "a/b",
    ],
)
def test_names_that_are_not_bids_are_left_out(path):
    listing = plan.sort_paths([path, "participants.tsv"])
    assert listing.common == ["participants.tsv"]
    assert not listing.recordings
    assert list(listing.unused) == [path]


def test_a_folder_named_from_the_checkout_is_found_from_a_temporary_experiment(settings, tmp_path, monkeypatch):
    fetch.main(settings(1), "R1")
    (tmp_path / "data/raw").rename(tmp_path / "mine")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    (tmp_path / ".dvc/tmp/exps/tmp1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / ".dvc/tmp/exps/tmp1")
    fetch.main(settings(1, url="mine/{release}"), "R1")
    assert tree(tmp_path / ".dvc/tmp/exps/tmp1/data/raw/R1").keys() == tree(tmp_path / "mine/R1").keys()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"id\tsex\nsub-A\tF\n", "has no column participant_id; it has id, sex"),
        (b"participant_id\nsub-\x00\n", "NUL"),
    ],
)
def test_an_unreadable_table_of_participants_is_told(settings, tmp_path, content, said):
    fetch.main(settings(1), "R1")
    (tmp_path / "data/raw").rename(tmp_path / "mine")
    (tmp_path / "mine/R1/participants.tsv").unlink()
    (tmp_path / "mine/R1/participants.tsv").write_bytes(content)
    with pytest.raises(HbnError, match=f"participants.*{said}"):
        fetch.main(settings(1, url=str(tmp_path) + "/mine/{release}"), "R1")


def test_clear_errors(settings, tmp_path):
    with pytest.raises(HbnError, match="is no BIDS release"):
        fetch.main(settings(url=str(tmp_path) + "/nothing/{release}"), "R1")
    with pytest.raises(HbnError, match=r"no recording of data\.tasks \['restingState'\].*RestingState"):
        fetch.main(settings(tasks=("RestingState", "restingState")), "R1")
    with pytest.raises(HbnError, match="cannot be read"):
        fetch.main(settings(url="ftp://bucket/{release}"), "R1")


def test_workers_do_not_change_a_byte(settings, tmp_path):
    one = settings(2, tasks=("RestingState", "contrastChangeDetection_1"))
    fetch.main(one, "R1")
    alone = tree(tmp_path / "data/raw/R1")
    shutil.rmtree(tmp_path / ".scratch")
    one.exec = one.exec.model_copy(update={"workers": 2})
    get_reusable_executor().shutdown(wait=True)  # idle workers stay in the folder of the test that started them
    fetch.main(one, "R1")
    get_reusable_executor().shutdown(wait=True)
    assert tree(tmp_path / "data/raw/R1") == alone
