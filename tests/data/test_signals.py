"""Samples as people's files hold them: units, headers, channels, gaps, stretches without a signal, and time."""

import re

import mne
import numpy as np
import pytest
from clone import REPOSITORY
from scipy.io import savemat
from small_recordings import recording_uv, write_bdf_of, write_paused_bdf, write_set_7_3, write_set_of

from hbn import params
from hbn.data import bids, cleaning, signals

P = params.load(REPOSITORY / "params.yaml").preprocess
REAL = REPOSITORY.parent / "shared/real-eeg"


def noise_uv(n_samples: int = 2000) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 20, (129, n_samples)).astype(np.float32)


def write_bdf(path, data_uv, unit=b"uV", names=bids.CHANNELS):
    """A BDF of 1-s records at 500 Hz whose header says `unit` for numbers that are microvolts."""
    write_bdf_of(path, data_uv, names)
    content, n = bytearray(path.read_bytes()), len(names)
    at = 256 + n * (16 + 80)
    content[at : at + 8 * n] = unit.ljust(8) * n
    path.write_bytes(content)
    return path


def refusal(path) -> bids.UnusableRecording:
    with pytest.raises(bids.UnusableRecording) as caught:
        signals.read_signal(path)
    return caught.value


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        *((unit, 1) for unit in (b"uV", b"UV", b"uv", b"\xb5V", "µV".encode(), "μV".encode(), b"microV", b"MicroVolt")),
        *((unit, 1000) for unit in (b"mV", b"mv", b"milliV")),
        *((unit, 1e6) for unit in (b"V", b"v", b"Volt")),
        *((unit, 1e-3) for unit in (b"nV", b"NV", b"nanoV")),
        *((unit, None) for unit in (b"MV", b"Mv", b"ADU", b"", b"dB", b"uV2")),
    ],
)
def test_units_are_converted_or_refused_by_name(unit, factor):
    assert signals.microvolts(unit) == (None if factor is None else pytest.approx(factor))


def test_a_unit_of_a_bdf_is_read_from_its_header_or_else_from_channels_tsv(tmp_path):
    data_uv = noise_uv(1000)
    path = write_bdf(tmp_path / "a_eeg.bdf", data_uv, b"mV")
    np.testing.assert_allclose(signals.read_signal(path).data_uv, 1000 * data_uv, atol=3)
    refused = refusal(write_bdf(tmp_path / "b_eeg.bdf", data_uv, b"ADU"))
    assert refused.reason == "units"
    assert "'ADU'" in refused.detail
    path = write_bdf(tmp_path / "c_eeg.bdf", data_uv, b"")
    assert refusal(path).reason == "units"
    rows = "".join(f"{name}\tEEG\tµV\n" for name in bids.CHANNELS)
    (tmp_path / "c_channels.tsv").write_text("name\ttype\tunits\n" + rows, encoding="utf-8")
    np.testing.assert_allclose(signals.read_signal(path).data_uv, data_uv, atol=3e-3)


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1e3])
def test_amplitudes_that_no_scalp_has_are_called_units(factor):
    data_uv = recording_uv(3, 20.0)
    with pytest.raises(bids.UnusableRecording) as caught:
        cleaning.clean((factor * data_uv).astype(np.float32), 250, 250, P)
    assert caught.value.reason == "units"
    assert "scalp EEG" in caught.value.detail


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nbchan": 100.0}, ("100", "129")),
        ({"pnts": 1500.0}, ("1500", "2000")),
        ({"srate": 250.0}, ("250",)),
        ({"srate": np.nan}, ("nan",)),
        ({"srate": "500"}, ("srate",)),
        ({"data": noise_uv() + 1j}, ("complex",)),
        ({"data": np.array([["text"]])}, ()),
        ({"chanlocs": np.array([("E1",)], dtype=[("labels", object)])}, ("129", "1")),
    ],
)
def test_a_header_that_does_not_fit_is_unreadable_with_both_numbers(tmp_path, changes, words):
    labels = np.array([(name,) for name in bids.CHANNELS], dtype=[("labels", object)])
    header = {"nbchan": 129.0, "pnts": 2000.0, "trials": 1.0, "srate": 500.0, "xmin": 0.0, "xmax": 1999 / 500}
    savemat(tmp_path / "a.set", {"EEG": header | {"data": noise_uv(), "chanlocs": labels} | changes}, appendmat=False)
    refused = refusal(tmp_path / "a.set")
    assert refused.reason == "unreadable"
    assert all(word in refused.detail for word in words)


def test_the_same_net_under_other_names_and_other_nets(tmp_path):
    data_uv, n = noise_uv(), len(bids.CHANNELS)
    names = [f" e{i:03d} " for i in range(1, 129)]
    for last in ("cz", "E129", "VREF"):
        read = signals.read_signal(write_set_of(tmp_path / "a.set", data_uv, [*names, last]))
        np.testing.assert_array_equal(read.data_uv, data_uv)
        assert read.mapped[names[0]] == "E1"
    read = signals.read_signal(write_set_of(tmp_path / "b.set", data_uv[:128], bids.CHANNELS[:128]))
    assert not read.data_uv[128].any()
    more = np.vstack([data_uv[:1], data_uv, data_uv[:1]])
    read = signals.read_signal(write_set_of(tmp_path / "c.set", more, ["ECG", *bids.CHANNELS, "Trigger 2"]))
    np.testing.assert_array_equal(read.data_uv, data_uv)
    assert "not used" in read.mapped["ECG"]
    larger = np.tile(data_uv, (2, 1))[:257]
    larger_names = [*(f"E{i}" for i in range(1, 257)), "Cz"]
    refused = refusal(write_set_of(tmp_path / "d.set", larger, larger_names))
    assert refused.reason == "channels"
    assert "257 channels, without [], with unknown [E130, E131" in refused.detail
    twice = [*bids.CHANNELS[:127], "E1", "Cz"]
    assert refusal(write_set_of(tmp_path / "e.set", data_uv, twice)).reason == "channels"
    assert n == 129


def test_matlab_7_3_is_read(tmp_path):
    data_uv = noise_uv()
    np.testing.assert_array_equal(signals.read_signal(write_set_7_3(tmp_path / "a.set", data_uv)).data_uv, data_uv)


@pytest.mark.parametrize(("value", "reason"), [(1e11, None), (1e13, "unreadable"), (np.inf, "not_finite")])
def test_a_damaged_sample_is_no_overflow(tmp_path, value, reason):
    data_uv = recording_uv(0, 14, 200)
    data_uv -= data_uv.mean(axis=1, keepdims=True)
    data_uv[70, 1000] = value
    path = write_set_of(tmp_path / "a.set", data_uv, sfreq_hz=200)
    if reason:
        assert refusal(path).reason == reason
    else:
        cleaned_uv, bads, _ = cleaning.clean(signals.read_signal(path).data_uv, 200, 100, P)
        assert bads["E71"] == "noisy"
        assert np.abs(cleaned_uv).max() < 1e4


def test_a_rate_is_the_whole_number_it_stands_for():
    assert signals.whole_rate(500.0000001) == 500
    assert signals.whole_rate(499.5) == 499.5


@pytest.mark.parametrize("sfreq_hz", [91, 100, 128, 250, 256, 499, 500, 512, 1000, 1024, 2048, 4999, 5000])
@pytest.mark.parametrize("new_sfreq_hz", [100, 500])
@pytest.mark.parametrize("odd", [0, 1, 3])
def test_a_sine_and_an_impulse_come_out_where_they_went_in(sfreq_hz, new_sfreq_hz, odd):
    n = 20 * sfreq_hz + odd
    time_s = np.arange(n) / sfreq_hz
    sine = np.sin(2 * np.pi * 10 * time_s)
    # A band-limited pulse: what a filter to 45 Hz leaves of an impulse at 10.0123 s, in a window.
    at_s = 10.0123
    pulse = np.sinc(40 * (time_s - at_s)) * np.exp(-0.5 * ((time_s - at_s) / 0.2) ** 2)
    data = 100 * np.stack([sine, pulse]).astype(np.float32)
    out = cleaning.filter_and_resample(data, sfreq_hz, new_sfreq_hz, 0.5, 45.0, 60.0)
    new_s = np.arange(out.shape[1]) / new_sfreq_hz
    inner = (new_s > 6 - 1e-9) & (new_s < 14 - 1e-9)  # whole periods
    phase = np.sum(out[0, inner] * np.exp(-2j * np.pi * 10 * new_s[inner])) * 2j / inner.sum()
    assert abs(np.angle(phase)) / (2 * np.pi * 10) < 1e-5
    gain = 1.0  # of the filters at 10 Hz, whose ripple is 0.2 %
    for kernel in cleaning.kernels(sfreq_hz, 0.5, 45.0, 60.0):
        gain *= abs(np.sum(kernel * np.exp(-2j * np.pi * 10 / sfreq_hz * np.arange(len(kernel)))))
    assert abs(phase) == pytest.approx(100 * gain, rel=1e-3)
    inner = (new_s > 8) & (new_s < 14)
    spectrum = np.fft.rfft(out[1, inner] * np.hanning(inner.sum()))
    hz = np.fft.rfftfreq(inner.sum(), 1 / new_sfreq_hz)
    band = (hz > 5) & (hz < 15)
    slope = np.polyfit(hz[band], np.unwrap(np.angle(spectrum[band])), 1)[0]
    assert -slope / (2 * np.pi) + new_s[inner][0] == pytest.approx(at_s, abs=1e-5)


@pytest.mark.parametrize("value", [0.0, None])
def test_a_stretch_without_a_signal_is_found_to_the_sample_and_the_rest_is_as_without_it(value):
    data_uv = recording_uv(3, 30.0)
    begin, end = 10 * 250 + 7, 15 * 250
    odd_uv = data_uv.copy()
    odd_uv[:, begin:end] = data_uv[:, begin - 1 : begin] if value is None else value
    ((found_begin, found_end),) = cleaning.dead_stretches(odd_uv, 125)
    assert (begin - found_begin, found_end) == (1 if value is None else 0, end)
    expected, _, none = cleaning.clean(data_uv, 250, 100, P)
    got, _, dead = cleaning.clean(odd_uv, 250, 100, P)
    assert none == []
    ((first, last),) = dead
    assert 1001 <= first <= 1003
    assert 1499 <= last <= 1501
    away = np.r_[0:600, 1900:3000]  # further than the filter reaches
    np.testing.assert_allclose(got[:, away], expected[:, away], atol=3)
    assert cleaning.dead_stretches(data_uv, 125) == []


def test_a_gap_in_a_bdf_is_time_without_a_signal(tmp_path):
    data_uv = noise_uv(2000)
    plain = signals.read_signal(write_bdf(tmp_path / "a.bdf", data_uv))
    assert plain.gaps == ()
    read = signals.read_signal(write_paused_bdf(tmp_path / "b.bdf", data_uv, (2.25, 3.25, 8.5, 9.502)))
    assert read.gaps == ((1000, 3125), (3625, 3626))
    assert read.gaps_s[0] == (2.0, 6.25)
    assert read.data_uv.shape == (129, 2000 + 2126)
    live = np.delete(np.arange(4126), np.r_[1000:3125, 3625:3626])
    np.testing.assert_array_equal(read.data_uv[:, live], plain.data_uv)
    assert (read.data_uv[:, 1000:3125] == plain.data_uv[:, 999:1000]).all()
    for begins_s, said in (
        ((0, 1, 1.5, 3), "record 2 begins at 1.5 s"),
        ((0, 1, 2, 9000), "8997 s are missing"),
        ((0, 1, 2, b"+nan"), "'\\+nan', which is no time"),
        ((0, 1, 2, b"three"), "three"),
    ):
        refused = refusal(write_paused_bdf(tmp_path / "c.bdf", data_uv, begins_s))
        assert refused.reason == "unreadable"
        assert re.search(said, refused.detail)


@pytest.mark.parametrize("said", [b"-1", b"4", b"5"])
def test_the_number_of_records_may_be_unknown_but_not_wrong(tmp_path, said):
    data_uv = noise_uv(2000)
    path = write_bdf(tmp_path / "a.bdf", data_uv)
    content = bytearray(path.read_bytes())
    content[236:244] = said.ljust(8)
    path.write_bytes(content)
    if said == b"5":
        assert refusal(path).reason == "unreadable"
    else:
        np.testing.assert_allclose(signals.read_signal(path).data_uv, data_uv, atol=3e-3)


@pytest.mark.skipif(not REAL.exists(), reason="no real recordings beside the repository")
def test_real_recordings_are_read_as_mne_does_or_refused():
    path = REAL / "test_raw_chanloc_fids.set"
    raw = mne.io.read_raw_eeglab(path, preload=True, verbose="ERROR")
    read = signals.read_signal(path)
    for row, name in zip(read.data_uv, bids.CHANNELS, strict=True):
        expected = raw.get_data(picks=["E129" if name == "Cz" else name])[0] * 1e6
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-3)
    assert read.sfreq_hz == 500
    reasons = {p.name: refusal(p).reason for p in sorted(REAL.iterdir()) if p.suffix in bids.EEG_SUFFIXES and p != path}
    assert reasons.pop("test_epochs_onefile.set") == "epochs"
    assert reasons.pop("test_raw_h5.set") == "unreadable"  # its .fdt is not beside it
    assert set(reasons.values()) == {"channels"}
