"""Small releases of files whose signals nobody reads, with whatever oddity a test is about."""

from pathlib import Path
from types import SimpleNamespace

from hbn import params
from hbn.data.bids import FACTORS
from hbn.files import write_json, write_tsv
from hbn.stage import view

PEOPLE = ("sub-A", "sub-B")
TASKS = ("RestingState", "contrastChangeDetection_run-1")
SIGNAL = b"a signal that nobody reads" * 100


def person(name: str, **cells: str) -> dict[str, str]:
    """A row of participants.tsv."""
    return {"participant_id": name, "sex": "F", "age": "9.5", **dict.fromkeys(FACTORS, "0.25"), **cells}


def write_release(root: Path, *rows: dict[str, str], suffix: str = ".set") -> Path:
    """Two recordings of each of PEOPLE."""
    for name in PEOPLE:
        for task in TASKS:
            write_recording(root, name, task, suffix)
    rows = rows or tuple(map(person, PEOPLE))
    write_tsv(root / "participants.tsv", rows, list(rows[0]))
    write_json(root / "dataset_description.json", {"Name": "Small release", "BIDSVersion": "1.9.0"})
    return root


def write_recording(root: Path, name: str, task: str, suffix: str = ".set") -> Path:
    """A signal, its sidecar and its events; the path of the signal."""
    signal = root / name / "eeg" / f"{name}_task-{task}_eeg{suffix}"
    signal.parent.mkdir(parents=True, exist_ok=True)
    signal.write_bytes(SIGNAL)
    write_json(signal.with_suffix(".json"), {"SamplingFrequency": 500})
    events = signal.with_name(signal.name.replace(f"_eeg{suffix}", "_events.tsv"))
    write_tsv(events, [{"onset": "0.5", "value": "break cnt"}], ["onset", "value"])
    return signal


def settings(url: str, **data) -> SimpleNamespace:
    """Parameters of fetch with all participants of a folder."""
    whole = params.load(Path(__file__).parents[1] / "params.yaml")
    data = {"url": url, "n_participants": 0, "tasks": ["RestingState", "contrastChangeDetection_1"], **data}
    changed = whole.model_copy(update={"data": whole.data.model_copy(update=data)})
    return view(changed, ("data", "simulator", "exec"))
