"""Fetching: exactly the selected files, verified, resumable, whatever the source says."""

import shutil

import pytest
from joblib.externals.loky import get_reusable_executor

import fetch
from hbn import params, sources, stage
from hbn.bids import Recording
from hbn.files import HbnError, read_json, read_tsv, sha256

QUICK = {"sfreq_hz": 100, "lead_in_s": 4.0}


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """Parameters of the stage with few, short recordings; the current folder is empty."""
    everything = params.load()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)

    def make(n_participants=2, url="simulated://{release}", tasks=("RestingState",), **simulator):
        data = {"url": url, "tasks": list(tasks), "n_participants": n_participants}
        changed = everything.model_copy(
            update={
                "data": everything.data.model_copy(update=data),
                "simulator": everything.simulator.model_copy(update={**QUICK, **simulator}),
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
    manifest = {row["path"]: row["sha256"] for row in read_tsv(tmp_path / "data/raw/R1/manifest.tsv")}
    assert manifest == {path: sha for path, sha in few.items() if path not in ("manifest.tsv", ".bidsignore")}

    written = []
    write = sources.SimulatedSource.write
    monkeypatch.setattr(
        sources.SimulatedSource, "write", lambda self, path, to: (written.append(path), write(self, path, to))[1]
    )
    fetch.main(settings(3), "R1")
    more = tree(tmp_path / "data/raw/R1")
    assert few.items() - {("manifest.tsv", few["manifest.tsv"])} <= more.items()
    assert len({path.split("/")[0] for path in written}) == 1  # only the new participant was made
    fetch.main(settings(2), "R1")
    assert tree(tmp_path / "data/raw/R1") == few
    assert read_json(tmp_path / "metrics/fetch/R1.json")["participants"] == 2


def test_an_interrupted_fetch_leaves_no_half_file_and_goes_on(settings, tmp_path, monkeypatch):
    write, calls = sources.SimulatedSource.write, []

    def breaks(self, path, destination):
        calls.append(path)
        if len(calls) == 9:
            destination.write_bytes(b"half")
            raise ConnectionError("lost")
        write(self, path, destination)

    with monkeypatch.context() as patch:
        patch.setattr(sources.SimulatedSource, "write", breaks)
        with pytest.raises(ConnectionError):
            fetch.main(settings(2), "R1")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"half"]
    calls.clear()
    monkeypatch.setattr(sources.SimulatedSource, "write", lambda *a: (calls.append(a[1]), write(*a))[1])
    fetch.main(settings(2), "R1")
    assert len(calls) == len(tree(tmp_path / "data/raw/R1")) - 2 - 8  # eight files were already there


def test_a_local_folder_gives_the_same_files_as_its_source(settings, tmp_path):
    fetch.main(settings(3), "R1")
    (tmp_path / "data/raw/R1").rename(tmp_path / "R1")
    fetch.main(settings(0, url=str(tmp_path) + "/{release}"), "R1")
    assert tree(tmp_path / "R1") == tree(tmp_path / "data/raw/R1")
    assert read_json(tmp_path / "metrics/fetch/R1.json")["source"] == f"{tmp_path}/{{release}}"


def test_availability_is_not_trusted(settings, tmp_path):
    common, recordings = fetch.sort_paths(
        [
            "participants.tsv",
            "sub-B/eeg/sub-B_task-RestingState_eeg.set",
            "sub-A/eeg/sub-A_task-RestingState_events.tsv",
        ]
    )
    assert common == ["participants.tsv"]
    assert list(recordings) == [Recording("sub-B", "RestingState", None)]  # sub-A has no signal
    assert fetch.choose(["sub-A", "sub-B"], recordings, ["RestingState"], 0) == list(recordings)


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
    common, recordings = fetch.sort_paths([path, "participants.tsv"])
    assert common == ["participants.tsv"]
    assert not recordings


def test_clear_errors(settings, tmp_path):
    with pytest.raises(HbnError, match="is no BIDS release"):
        fetch.main(settings(url=str(tmp_path) + "/nothing/{release}"), "R1")
    with pytest.raises(HbnError, match=r"no recording of data\.tasks \['restingState'\].*RestingState"):
        fetch.main(settings(tasks=("RestingState", "restingState")), "R1")
    with pytest.raises(HbnError, match="cannot be read yet"):
        fetch.main(settings(url="s3://bucket/{release}"), "R1")


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
