"""A simulated release is BIDS: the public validator finds no error in it, and mne-bids reads all of it."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import mne_bids
import pytest
import s3_server

from hbn.data import bids, events
from hbn.simulator.people import TASKS

EVERYTHING = tuple(task if run is None else f"{task}_{run}" for task, runs in TASKS.items() for run in runs)
EVERYTHING = (*(column for column in EVERYTHING if column != "seqLearning8target"), "seqLearning8target")


@pytest.fixture(scope="module", params=["set", "bdf"])
def release(request, tmp_path_factory):
    """All recordings of one participant, short ones at 100 Hz, and the version of seqLearning of an older one."""
    folder = tmp_path_factory.mktemp(request.param) / "R1"
    quick = {"sfreq_hz": 100, "lead_in_s": 4.0, "file_format": request.param}
    s3_server.simulate(folder, "R1", 1, EVERYTHING[:-1], **quick)
    return s3_server.simulate(folder, "R1", 1, EVERYTHING[-1:], **quick)


def validate(root) -> dict[str, Counter]:
    """What the validator finds: severity -> how often each code."""
    validator = Path(sys.executable).with_name("bids-validator-deno")
    command = [validator, root, "--format", "json", "--max-rows", "-1"]
    output = json.loads(subprocess.run(command, capture_output=True, text=True).stdout)
    assert output["summary"]["modalities"] == ["EEG"]
    found = {"error": Counter(), "warning": Counter()}
    for issue in output["issues"]["issues"]:
        found[issue["severity"]][issue["code"]] += 1
    return found


def test_the_public_validator_finds_no_error(release):
    found = validate(release)
    assert not found["error"]
    # What HBN's own releases leave open as well: recommended fields, columns without a description.
    assert set(found["warning"]) <= {
        *("SIDECAR_KEY_RECOMMENDED", "JSON_KEY_RECOMMENDED", "TSV_ADDITIONAL_COLUMNS_UNDEFINED"),
        *("TOO_FEW_AUTHORS", "README_FILE_SMALL"),
    }
    table = next(release.glob("sub-*/eeg/*_run-1_events.tsv"))
    content = table.read_text()
    table.write_text(content.replace("onset\t", "begin\t", 1))
    assert validate(release)["error"]  # it does look
    table.write_text(content)


def test_mne_bids_reads_every_recording_with_its_events(release):
    paths = mne_bids.find_matching_paths(release, extensions=[".set", ".bdf"])
    assert len(paths) == len(EVERYTHING)
    for path in paths:
        raw = mne_bids.read_raw_bids(path, verbose="ERROR")
        assert raw.ch_names == list(bids.CHANNELS)
        assert set(raw.get_channel_types()) == {"eeg"}
        assert (raw.info["sfreq"], raw.info["line_freq"]) == (100, 60)
        table = events.read_events(str(path.fpath).replace(f"_eeg{path.extension}", "_events.tsv"))
        assert sorted(raw.annotations.description) == sorted(event.value for event in table)
        assert raw.annotations.onset == pytest.approx([event.onset_s for event in table], abs=0.006)
