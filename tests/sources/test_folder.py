"""Folders as people have them: what is used, what is not and why, what is refused by name before any work."""

import os
import re

import pytest
from clone import REPOSITORY
from small_release import PEOPLE, SIGNAL, TASKS, person, settings, write_recording, write_release

import fetch
from hbn import params
from hbn.data.manifest import OWN_FILES, read_label, signal_md5s
from hbn.files import HbnError, md5, read_json, read_tsv, write_json, write_text
from hbn.sources.folder import FolderSource
from hbn.sources.simulated import SimulatedSource

ANNEX = "../../.git/annex/objects/aa/bb/SHA256E-s6195000--00.set/SHA256E-s6195000--00.set"
CONTRAST = "sub-A/eeg/sub-A_task-contrastChangeDetection_run-1"


@pytest.fixture
def root(workspace):
    return write_release(workspace / "source/R1")


def fetched(root, **data) -> dict:
    """Run the stage on a folder; the metrics."""
    fetch.main(settings(str(root), **data), "R1")
    return read_json("metrics/fetch/R1.json")


def refused(root, **data) -> str:
    """The one line with which the stage ends before it has written anything."""
    with pytest.raises(HbnError) as caught:
        fetched(root, **data)
    assert not os.path.exists("data/raw")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def raw() -> set[str]:
    """Paths of data/raw/R1 but for what fetch adds."""
    source = FolderSource("data/raw/R1")
    return set(source.paths()) - set(OWN_FILES)


def test_all_of_a_healthy_release_is_used(root):
    metrics = fetched(root)
    assert metrics["unused"] == {}
    assert metrics["not_understood"] == []
    assert metrics["recordings"] == {"RestingState": 2, "contrastChangeDetection_1": 2}
    assert raw() == set(FolderSource(root).paths())


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("sub-A/ses-01/eeg/sub-A_ses-01_task-RestingState_eeg.set", "of a session (ses-), sessions are not read"),
        ("sub-A/eeg/sub-A_ses-01_task-RestingState_eeg.set", "of a session (ses-), sessions are not read"),
        ("ses-01/sub-A/eeg/sub-A_task-RestingState_eeg.set", "of a session (ses-), sessions are not read"),
        ("sub-A/eeg/sub-A_acq-2_task-RestingState_eeg.set", "not named sub-ID_task-TASK"),
        ("sub-A/eeg/sub-A_task-RestingState_eeg.SET", "not named sub-ID_task-TASK"),
        ("sub-A/eeg/sub-A_task-RestingState_eeg copy.set", "not named sub-ID_task-TASK"),
        ("sub-A/eeg/sub-B_task-RestingState_eeg.json", "not named sub-ID_task-TASK"),
        ("sub-A/eeg/notes.txt", "not named sub-ID_task-TASK"),
        ("sub-A/beh/sub-A_task-RestingState_beh.tsv", "in sub-ID/beh, only sub-ID/eeg is read"),
        ("sub-A/eeg/old/sub-A_task-RestingState_eeg.set", "in sub-ID/eeg/old, only sub-ID/eeg is read"),
        ("sub-A/sub-A_scans.tsv", "only sub-ID/eeg is read"),
        ("sub_A/eeg/sub-A_task-RestingState_eeg.set", "in sub_A/, which is no participant's folder"),
        ("derivatives/x.tsv", "in derivatives/, which is no participant's folder"),
        ("sub-A/eeg/._sub-A_task-RestingState_eeg.set", "hidden"),
        ("participants.tsv.bak", "a file beside the participants' folders"),
        ("sub-C/eeg/sub-C_task-RestingState_events.tsv", "no signal (.set or .bdf) of this recording"),
        ("sub-C/eeg/sub-C_task-RestingState_eeg.edf", "a signal in .edf, only .set and .bdf are read"),
        ("sub-C/eeg/sub-C_task-RestingState_eeg.set", "not in participants.tsv"),
        ("task-surroundSupp_eeg.json", "another task than data.tasks"),
        ("sub-A/eeg/sub-A_task-surroundSupp_run-1_eeg.set", "another task than data.tasks"),
    ],
)
def test_what_is_not_used_is_told_with_the_reason(root, caplog, path, reason):
    caplog.set_level("INFO")
    everything = set(FolderSource(root).paths())
    write_text(root / path, "x" * 2000)
    [(said, facts)] = fetched(root)["unused"].items()
    assert reason in said
    assert facts == {"files": 1, "such_as": path}
    assert f"not used, 1 files: {said} ({path})" in caplog.text
    assert raw() == everything


def test_names_that_cannot_be_printed_are_told(root, caplog):
    for name in (b"a\xff.txt", b"new\nline"):
        (root / os.fsdecode(name)).write_text("x" * 2000)
    [(_, facts)] = fetched(root)["unused"].items()
    assert facts == {"files": 2, "such_as": "a?.txt"}


def test_ids_in_the_table_without_sub_are_told(workspace):
    root = write_release(workspace / "source/R1", person("A"), person("B"))
    assert re.search(r"participants.tsv \(A \.\.\.\) .* name none of those who have .* \(sub-A \.\.\.\)", refused(root))


def test_files_that_the_parameters_leave_out_are_counted(root):
    unused = fetched(root, tasks=["RestingState"], participants=["sub-A"])["unused"]
    assert {reason: facts["files"] for reason, facts in unused.items()} == {
        "another task than data.tasks": 6,
        "participant not chosen, selection.tsv says why": 3,
    }


def test_when_nothing_is_left_the_reasons_are_in_the_refusal(root):
    for name in PEOPLE:
        (root / name / "ses-01").mkdir()
        (root / name / "eeg").rename(root / name / "ses-01" / "eeg")
    assert re.search(r"no recording of data\.tasks.*; not used: 12 files are of a session", refused(root))


@pytest.mark.parametrize(
    ("other", "files"),
    [
        (f"{CONTRAST}_eeg.bdf", (f"{CONTRAST}_eeg.bdf", f"{CONTRAST}_eeg.set")),
        (f"{CONTRAST.replace('-1', '-01')}_eeg.set", ("run-01_eeg.set", "run-1_eeg.set")),
        (f"{CONTRAST.replace('-1', '-001')}_eeg.bdf", ("run-001_eeg.bdf", "run-1_eeg.set")),
    ],
)
def test_one_recording_in_two_files_is_refused_by_their_names(root, other, files):
    write_text(root / other, "x" * 2000)
    said = refused(root)
    assert "one recording in 2 files" in said
    assert all(name in said for name in files)
    assert fetched(root, participants=["sub-B"])["participants"] == 1  # whom it does not concern


def test_zero_padded_runs_keep_their_names(root):
    for path in (root / "sub-A/eeg").glob("*run-1_*"):
        path.rename(path.with_name(path.name.replace("run-1_", "run-01_")))
    metrics = fetched(root)
    assert metrics["recordings"] == {"RestingState": 2, "contrastChangeDetection_1": 2}
    assert raw() == set(FolderSource(root).paths())


def test_events_under_another_spelling_of_the_run_are_told(root):
    path = root / f"{CONTRAST}_events.tsv"
    path.rename(path.with_name(path.name.replace("run-1_", "run-01_")))
    assert list(fetched(root)["unused"]) == ["another spelling of the run than the signal's"]


@pytest.mark.parametrize("suffix", ["_eeg.set", "_eeg.fdt", "_events.tsv", "_eeg.json"])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("link", "is a broken link to ../../../elsewhere"),
        ("annex link", "is a placeholder of git-annex (a broken link)"),
        ("annex pointer", "is a placeholder of git-annex,"),
        ("old annex pointer", "is a placeholder of git-annex,"),
    ],
)
def test_content_that_is_not_there_is_told_before_any_work(root, suffix, kind, said):
    path = root / f"{CONTRAST}{suffix}"
    path.unlink(missing_ok=True)
    if "pointer" in kind:
        path.write_text(ANNEX if kind == "old annex pointer" else "/annex/objects/SHA256E-s6192000--00.fdt\n")
    else:
        path.symlink_to(ANNEX if kind == "annex link" else "../../../elsewhere")
    line = refused(root)
    assert line.startswith(f"{path} {said}")
    assert f"run `datalad get {CONTRAST}{suffix}` or `git annex get {CONTRAST}{suffix}` in {root}" in line
    assert fetched(root, participants=["sub-B"])["participants"] == 1


def test_other_content_that_is_not_there(root):
    (root / f"{CONTRAST}_eeg.set").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    assert f"is a placeholder of Git LFS, not the file itself: run `git lfs pull -I {CONTRAST}_eeg.set`" in refused(
        root
    )
    (root / f"{CONTRAST}_eeg.set").write_bytes(b"")
    assert "is a placeholder of 0 bytes" in refused(root)
    (root / "participants.tsv").unlink()
    (root / "participants.tsv").symlink_to(ANNEX)
    assert f"{root}/participants.tsv is a placeholder of git-annex" in refused(root)


def test_a_link_to_content_that_is_there_is_the_content(root, tmp_path):
    path = root / f"{CONTRAST}_eeg.set"
    path.rename(tmp_path / "annexed")
    path.symlink_to(tmp_path / "annexed")
    fetched(root)
    assert (tmp_path / f"data/raw/R1/{CONTRAST}_eeg.set").read_bytes() == SIGNAL


def test_a_participants_folder_that_is_not_there_is_told(root):
    (root / "sub-C").symlink_to("../elsewhere")
    [reason] = fetched(root)["unused"]
    assert "or a broken link: `datalad get` or `git annex get` may bring it" in reason


def test_a_link_that_leads_in_a_circle_ends(root):
    (root / "sub-A/eeg/again").symlink_to(root)
    assert fetched(root)["unused"] == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_named(root):
    (root / "sub-A/eeg").chmod(0)
    assert f"{root}/sub-A/eeg cannot be listed" in refused(root)
    (root / "sub-A/eeg").chmod(0o700)


def test_the_home_folder_is_understood(root, workspace, monkeypatch):
    monkeypatch.setenv("HOME", str(workspace))
    metrics = fetched("~/source/{release}")
    assert metrics["participants"] == 2
    assert metrics["source"] == "~/source/{release}"
    with pytest.raises(HbnError, match="~nobody-of-this-name/R1 is no BIDS release"):
        fetched("~nobody-of-this-name/{release}")
    simulator = params.load(REPOSITORY / "params.yaml").simulator.model_copy(update={"metadata_dir": "~/source"})
    assert "sub-A/eeg/sub-A_task-RestingState_eeg.set" in SimulatedSource("R1", simulator).paths()


def test_the_table_is_read_for_those_who_are_used(workspace, caplog):
    rows = [person("sub-A", sex="male", age="89+"), person("sub-B"), person("sub-Z", sex="O"), person("sub-Z")]
    root = write_release(workspace / "source/R1", *rows)
    remarks = fetched(root)["not_understood"]
    assert remarks == [
        "participants.tsv of R1, column sex: 'male' of sub-A is taken for M",
        "participants.tsv of R1, column age: '89+' of sub-A is not understood and counts as unknown",
    ]
    assert all(remark in caplog.text for remark in remarks)
    assert fetched(root, participants=["sub-B"])["not_understood"] == []


def test_an_id_that_stands_twice_is_refused_if_it_is_used(workspace):
    root = write_release(workspace / "source/R1", person("sub-A"), person("sub-A", age="12"), person("sub-B"))
    assert "participants.tsv of R1: sub-A stands twice" in refused(root)
    assert "sub-A stands twice" in refused(root, select="balanced")
    assert fetched(root, participants=["sub-B"])["participants"] == 1


def test_balanced_takes_sexes_as_people_write_them(workspace):
    rows = [person("sub-A", sex="male"), person("sub-B", sex="F"), person("sub-C", sex="M")]
    root = write_release(workspace / "source/R1", *rows)
    for task in TASKS:
        write_recording(root, "sub-C", task)
    fetched(root, n_participants=2, select="balanced")
    chosen = [row["participant_id"] for row in read_tsv("data/raw/R1/selection.tsv") if row["chosen"] == "yes"]
    assert chosen == ["sub-A", "sub-B"]


def test_the_manifest_covers_every_file_that_may_decide_a_signal(root, workspace):
    fdt = root / f"{CONTRAST}_eeg.fdt"
    fdt.write_bytes(SIGNAL)

    def decisive() -> dict[str, str]:
        fetched(root)
        manifest = {row["path"]: row["md5"] for row in read_tsv("data/raw/R1/manifest.tsv")}
        assert manifest == {path: md5(f"data/raw/R1/{path}") for path in raw()}
        return signal_md5s(manifest)

    before = decisive()
    assert set(before[f"{CONTRAST}"]) == {f"{CONTRAST}_eeg.{kind}" for kind in ("set", "fdt", "json")}
    fdt.write_bytes(SIGNAL[::-1])
    after = decisive()
    assert {name for name in before if before[name] != after[name]} == {CONTRAST}


@pytest.mark.parametrize(
    ("about", "label"),
    [
        ({"Name": " The   lab's own\tdata "}, "The lab's own data"),
        ({"Name": "Simulated", "GeneratedBy": [{"Name": "hbn simulator"}]}, "simulated"),
        ({"GeneratedBy": [{"Name": "Matlab"}]}, "unnamed data set"),
        ("[]", "unnamed data set"),
        (None, "unnamed data set"),
    ],
)
def test_the_label_comes_from_the_files(root, workspace, about, label):
    place = root / "dataset_description.json"
    if isinstance(about, dict):
        write_json(place, about)
    elif about:
        place.write_text(about)
    else:
        place.unlink()
    assert fetched(root)["dataset"] == label
    assert read_label(workspace / "data/raw/R1", "") == label


def test_the_same_bytes_elsewhere_give_the_same_bytes(root, workspace):
    def tree() -> dict[str, str]:
        return {path: md5(f"data/raw/R1/{path}") for path in {*raw(), *OWN_FILES}}

    fetched(root)
    before = tree()
    root.rename(workspace / "moved")
    assert fetched(workspace / "moved")["source"] == str(workspace / "moved")
    assert tree() == before
