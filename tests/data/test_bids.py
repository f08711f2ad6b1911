"""Names, participants and signals, from files with the flaws that real ones have."""

import mne
import numpy as np
import pytest
from small_recordings import write_bdf_of as write_bdf
from small_recordings import write_set_of as write_set

from hbn.data import bids, signals


def recording_uv(n_samples: int = 1000) -> np.ndarray:
    """Channel i lies near 100 i uV, so that an exchanged row is seen."""
    rng = np.random.default_rng(0)
    return (rng.normal(0, 20, (129, n_samples)) + 100 * np.arange(129)[:, None]).astype(np.float32)


def reason(path) -> str:
    with pytest.raises(bids.UnusableRecording) as caught:
        signals.read_signal(path)
    assert path.name in caught.value.detail
    return caught.value.reason


def test_recordings_are_found_in_order(tmp_path):
    names = ["sub-B_task-RestingState_eeg.bdf", "sub-A_task-T_run-2_eeg.set", "sub-A_task-T_run-1_eeg.set"]
    for name in [*names, "sub-A_task-T_run-1_eeg.json"]:
        path = tmp_path / name.split("_")[0] / "eeg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = [recording for recording, _ in bids.recordings(tmp_path)]
    assert [(one.participant_id, one.column) for one in found] == [
        ("sub-A", "T_1"),
        ("sub-A", "T_2"),
        ("sub-B", "RestingState"),
    ]


@pytest.mark.parametrize("kind", ["set", "bdf"])
def test_signals_come_in_microvolts_and_in_the_order_of_the_net(tmp_path, kind):
    data_uv = recording_uv()
    write = {"set": write_set, "bdf": write_bdf}[kind]
    signal = signals.read_signal(write(tmp_path / f"a.{kind}", data_uv[::-1], bids.CHANNELS[::-1]))
    assert signal.sfreq_hz == 500
    assert signal.data_uv.dtype == np.float32
    np.testing.assert_allclose(signal.data_uv, data_uv, atol=0.002)  # 24 bits over 40 mV: 0.0024 uV steps


@pytest.mark.parametrize(
    "event",
    [
        "no events",
        np.array([("5",)], dtype=[("type", object)]),
        np.array([("5", "n/a"), (9, np.array([]))], dtype=[("type", object), ("latency", object)]),
    ],
)
def test_events_inside_a_set_do_not_matter(tmp_path, event):
    path = write_set(tmp_path / "a.set", recording_uv(), event=event)
    with pytest.raises((AttributeError, KeyError, ValueError)):  # why read_signal does not leave them to MNE
        mne.io.read_raw_eeglab(path, verbose="ERROR")
    assert signals.read_signal(path).data_uv.shape == (129, 1000)


def test_a_status_channel_is_left_out_and_an_unknown_electrode_is_not(tmp_path):
    data_uv = np.vstack([recording_uv(), np.zeros((1, 1000), np.float32)])
    assert (
        signals.read_signal(write_bdf(tmp_path / "a.bdf", data_uv, (*bids.CHANNELS, "Status"))).data_uv.shape[0] == 129
    )
    assert reason(write_bdf(tmp_path / "b.bdf", data_uv, (*bids.CHANNELS, "E130"))) == "channels"


def test_unusable_files_say_why(tmp_path):
    data_uv = recording_uv()
    assert reason(write_set(tmp_path / "few.set", data_uv[:127], bids.CHANNELS[:127])) == "channels"
    data_uv[3, 7] = np.nan
    assert reason(write_set(tmp_path / "nan.set", data_uv)) == "not_finite"
    pointer = tmp_path / "pointer.set"
    pointer.write_text("/annex/objects/MD5E-s44074944--0123.set\n")
    assert reason(pointer) == "pointer"
    link = tmp_path / "link.bdf"
    link.symlink_to("../../.git/annex/objects/xx/yy")
    assert reason(link) == "pointer"


@pytest.mark.parametrize("kind", ["set", "bdf"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99999])
def test_truncated_files_are_not_read_in_part(tmp_path, kind, share):
    path = tmp_path / f"a.{kind}"
    {"set": write_set, "bdf": write_bdf}[kind](path, recording_uv())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert reason(path) == ("unreadable" if share else "pointer")
