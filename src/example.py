"""Write a small recording to try predict.py and check.py with: python src/example.py FOLDER

Writes FOLDER, a BIDS release of one simulated person on whom no network was trained: one block of contrast change
detection (24 trials, about 3 minutes) at 100 Hz as .bdf, with its events beside it.
"""

from pathlib import Path

from hbn.data.bids import Recording
from hbn.data.events import CONTRAST_CHANGE
from hbn.files import atomic
from hbn.simulator.people import recordings_of
from hbn.sources.simulated import SimulatedSource
from hbn.stage import run

RELEASE = "example"  # its people are in no other release
TASK = f"{CONTRAST_CHANGE}_1"


def main(p, folder: str) -> None:
    settings = p.simulator.model_copy(update={"metadata_dir": "", "sfreq_hz": 100, "file_format": "bdf"})
    source = SimulatedSource(RELEASE, settings)
    recording = first_with_task(source)
    source.rows = {recording.participant_id: source.rows[recording.participant_id]}
    for path in source.paths():
        if not path.startswith("sub-") or Recording.of(path) == recording:
            with atomic(Path(folder) / path) as temporary:
                source.write(path, temporary)
    print(f"python src/predict.py {Path(folder) / recording.folder / recording.stem}_eeg.bdf")


def first_with_task(source: SimulatedSource) -> Recording:
    """The recording of the first person who did the task."""
    recordings = (recording for row in source.rows.values() for recording in recordings_of(row))
    return next(recording for recording in recordings if recording.column == TASK)


if __name__ == "__main__":
    run(main, reads=("simulator",))
