"""Samples in microvolts, in the order of the net and at their time, from files as the field has them."""

import re

import h5py
import mne
import numpy as np
import pytest
from clone import REPOSITORY
from scipy.io import savemat
from small_recordings import write_bdf_of, write_set_of

from hbn import params
from hbn.data import cleaning, signals
from hbn.data.bids import CHANNELS, UnusableRecording
from hbn.files import write_tsv

P = params.load(REPOSITORY / "params.yaml").preprocess
BAND = P.highpass_hz, P.lowpass_hz, P.notch_hz
UNIT_FIELD = 256 + 130 * 96  # where the first physical dimension of a BDF with 130 signals stands


def scalp_uv(n_samples: int = 2000, seed: int = 0) -> np.ndarray:
    """Smooth signals (129, T) against Cz, of about 10 uV, without content above 40 Hz."""
    rng = np.random.default_rng(seed)
    spectrum = rng.normal(size=(10, n_samples // 2 + 1, 2)) @ [1, 1j]
    hz = np.fft.rfftfreq(n_samples, 1 / 500)
    spectrum *= (hz > 1) & (hz < 40)
    sources = np.fft.irfft(spectrum, n_samples)
    data_uv = rng.normal(size=(129, 10)) @ (sources / sources.std()) * 3 + 500 * np.arange(129)[:, None]
    return (data_uv - data_uv[128]).astype(np.float32)


def refused(path) -> UnusableRecording:
    with pytest.raises(UnusableRecording) as caught:
        signals.read_signal(path)
    assert path.name in caught.value.detail
    assert "\n" not in caught.value.detail
    return caught.value


def bdf_with(path, **changes):
    """A BDF with a channel Status, of which bytes at a place in the header are replaced."""
    write_bdf_of(path, np.vstack([scalp_uv(), np.zeros((1, 2000))]), (*CHANNELS, "Status"))
    with open(path, "r+b") as file:
        for place, content in changes.values():
            file.seek(place)
            file.write(content)
    return path


def with_unit(path, unit: bytes):
    return bdf_with(path, units=(UNIT_FIELD, unit.ljust(8) * 129))


UV = ["uV", "uv", "UV", "Uv", "µV", "μV", "µv", "microV", "MicroVolt", "microvol", "uVolts", "[uV]", "MICROV", "㎶"]
MV = ["mV", "mv", "millivol", "milliV", "mVolt", "MILLIV"]
V, NV, UNKNOWN = ["V", "v", "volt", "Volts"], ["nV", "nv", "NV", "nanoVolt"], ["MV", "Mv", "ADU", "kV", "%", "pV", "uA"]


@pytest.mark.parametrize(("units", "factor"), [(UV, 1.0), (MV, 1e3), (V, 1e6), (NV, 1e-3), (UNKNOWN, None)])
def test_usual_spellings_of_units_are_known_and_others_are_not(units, factor):
    for unit in units:
        assert signals.microvolts(unit) == factor, unit
        assert signals.microvolts(unit.encode()) == factor, unit
    assert signals.microvolts(b"\xb5V") == 1.0  # Latin-1


def test_units_in_a_header_convert_or_refuse_by_name(tmp_path):
    expected_uv = signals.read_signal(bdf_with(tmp_path / "a.bdf")).data_uv
    for unit, factor in (("µV".encode(), 1), (b"\xb5v", 1), (b"mV", 1e3), (b"nV", 1e-3)):
        data_uv = signals.read_signal(with_unit(tmp_path / "b.bdf", unit)).data_uv
        np.testing.assert_allclose(data_uv, factor * expected_uv, rtol=1e-5)
    for unit in (b"MV", b"ADU", b""):
        error = refused(with_unit(tmp_path / "c.bdf", unit))
        assert error.reason == "units"
        assert (repr(unit.decode()) if unit else "no unit") in error.detail
    path = with_unit(tmp_path / "x_eeg.bdf", b"")
    write_tsv(tmp_path / "x_channels.tsv", [{"name": n, "units": "mV"} for n in CHANNELS], ["name", "units"])
    np.testing.assert_allclose(signals.read_signal(path).data_uv, 1e3 * expected_uv, rtol=1e-5)


@pytest.mark.parametrize(
    ("header", "numbers"),
    [
        ({"nbchan": 130.0}, ("130", "129")),
        ({"pnts": 1999.0}, ("1999", "2000")),
        ({"chanlocs": np.array([(n,) for n in CHANNELS[:100]], dtype=[("labels", object)])}, ("129", "100")),
        ({"srate": 250.0, "xmax": 1999 / 500}, ("250", "2000")),
        ({"srate": "fast"}, ("srate",)),
        ({"pnts": np.zeros((0, 0))}, ("pnts",)),
        ({"pnts": float("nan")}, ("pnts",)),
        ({"data": scalp_uv() + 1j}, ("complex",)),
        ({"data": np.array(["a"] * 129, dtype=object)}, ("129",)),
        ({"data": "gone.fdt"}, ("gone.fdt",)),
    ],
)
def test_a_header_that_does_not_fit_is_refused_with_both_numbers(tmp_path, header, numbers):
    labels = np.array([(name,) for name in CHANNELS], dtype=[("labels", object)])
    facts = {"nbchan": 129.0, "pnts": 2000.0, "trials": 1.0, "srate": 500.0, "xmin": 0.0, "xmax": 1999 / 500}
    savemat(tmp_path / "a.set", {"EEG": facts | {"data": scalp_uv(), "chanlocs": labels} | header}, appendmat=False)
    error = refused(tmp_path / "a.set")
    assert error.reason == "unreadable"
    assert all(number in error.detail for number in numbers), error.detail


def test_names_of_the_same_net(tmp_path):
    data_uv, plain = scalp_uv(), list(CHANNELS)
    for labels in (
        [*plain[:128], "E129"],
        [name.lower() for name in plain],
        [f" {name} " for name in plain],
        [f"EEG {name}" for name in plain],
        [re.sub(r"E(\d+)", lambda m: f"E{int(m[1]):03d}", name) for name in plain[:128]] + ["VREF"],
    ):
        signal = signals.read_signal(write_set_of(tmp_path / "a.set", data_uv, labels))
        assert (signal.data_uv == data_uv).all()
        assert set(signal.mapped.values()) <= set(CHANNELS)
        assert signal.mapped
    extra = ["ECG", "VEOG", "Status", "Status2", "DIN1", "Resp"]
    more_uv = np.vstack([scalp_uv(seed=1)[:6], data_uv])
    signal = signals.read_signal(write_set_of(tmp_path / "b.set", more_uv, [*extra, *plain]))
    assert (signal.data_uv == data_uv).all()
    assert set(signal.mapped) == set(extra)


def test_cz_that_is_absent_is_the_reference_unless_there_is_another(tmp_path):
    data_uv = scalp_uv()
    signal = signals.read_signal(write_set_of(tmp_path / "a.set", data_uv[:128], CHANNELS[:128]))
    assert (signal.data_uv == data_uv).all()
    assert "zero" in signal.mapped["(absent)"]
    averaged_uv = data_uv[:128] - data_uv[:128].mean(axis=0)
    assert "average" in refused(write_set_of(tmp_path / "b.set", averaged_uv, CHANNELS[:128])).detail


@pytest.mark.parametrize("labels", [[*(f"E{i}" for i in range(1, 257)), "Cz"], [*CHANNELS[:64], "Cz"], [*CHANNELS, "E129"]])
def test_other_nets_and_two_names_for_one_channel_are_refused(tmp_path, labels):
    data_uv = np.resize(scalp_uv(), (len(labels), 2000))
    assert refused(write_set_of(tmp_path / "a.set", data_uv, labels)).reason == "channels"


def test_matlab_7_3_is_read(tmp_path):
    """As MATLAB lays out HDF5: arrays transposed, texts as numbers, a structure array as references."""
    data_uv = scalp_uv()
    with h5py.File(tmp_path / "a.set", "w", userblock_size=512) as file:

        def put(group, name, array, kind):
            dataset = group.create_dataset(name, data=array)
            dataset.attrs["MATLAB_class"] = np.bytes_(kind)
            return dataset

        eeg = file.create_group("EEG")
        eeg.attrs["MATLAB_class"] = np.bytes_("struct")
        for name, value in {"nbchan": 129, "pnts": 2000, "trials": 1, "srate": 500, "xmin": 0, "xmax": 3.998}.items():
            put(eeg, name, np.array([[float(value)]]), "double")
        put(eeg, "data", data_uv.T, "single")
        labels = [put(file, f"#refs#/{name}", np.array([[ord(c)] for c in name], "u2"), "char").ref for name in CHANNELS]
        chanlocs = eeg.create_group("chanlocs")
        chanlocs.attrs["MATLAB_class"] = np.bytes_("struct")
        chanlocs.create_dataset("labels", data=np.array(labels, dtype=h5py.ref_dtype)[:, None], dtype=h5py.ref_dtype)
    with open(tmp_path / "a.set", "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\x02IM")
    signal = signals.read_signal(tmp_path / "a.set")
    assert (signal.data_uv == data_uv).all()


def test_an_fdt_is_read_and_a_placeholder_of_it_is_named(tmp_path):
    data_uv = scalp_uv()
    labels = np.array([(name,) for name in CHANNELS], dtype=[("labels", object)])
    facts = {"nbchan": 129.0, "pnts": 2000.0, "trials": 1.0, "srate": 500.0, "data": "old.fdt", "chanlocs": labels}
    savemat(tmp_path / "a.set", {"EEG": facts}, appendmat=False)
    fdt = tmp_path / "a.fdt"
    fdt.write_bytes(data_uv.T.astype("<f4").tobytes())
    assert (signals.read_signal(tmp_path / "a.set").data_uv == data_uv).all()
    fdt.write_bytes(fdt.read_bytes()[:-4])
    assert refused(tmp_path / "a.set").reason == "unreadable"
    fdt.write_text("/annex/objects/SHA256E-s6192000--00.fdt\n")
    for _ in range(2):
        with pytest.raises(UnusableRecording, match=r"pointer: a\.fdt.*datalad get") as caught:
            signals.read_signal(tmp_path / "a.set")
        assert "bug" not in str(caught.value)
        fdt.unlink()
        fdt.symlink_to("../.git/annex/objects/aa/bb/cc.fdt")


@pytest.mark.parametrize(("said", "accepted"), [(b"-1", True), (b"4", True), (b"5", False), (b"3", False), (b"x", False)])
def test_the_number_of_records_fits_or_is_unknown(tmp_path, said, accepted):
    path = bdf_with(tmp_path / "a.bdf", records=(236, said.ljust(8)))
    if accepted:
        assert signals.read_signal(path).data_uv.shape == (129, 2000)
    else:
        assert refused(path).reason == "unreadable"


def test_rates_that_are_whole_but_for_rounding():
    assert [signals.whole_rate(rate) for rate in (500.0000001, 499.9999999, 99.9999, 500.5)] == [500, 500, 100, 500.5]


REAL = REPOSITORY.parent / "shared/real-eeg"
REASONS = {
    **{"test_raw_h5.set": "unreadable", "test_epochs_onefile.set": "epochs", "eeglab_data.set": "channels"},
    **{"multiple_annotation_chans.bdf": "channels", "test_bdf_stim_channel.bdf": "channels", "test.bdf": "channels"},
}


@pytest.mark.skipif(not REAL.exists(), reason="no real recordings beside the repository")
def test_real_recordings_are_those_of_mne_or_refused():
    path = REAL / "test_raw_chanloc_fids.set"
    theirs_uv = mne.io.read_raw_eeglab(path, preload=True, verbose="ERROR").get_data() * 1e6
    np.testing.assert_allclose(signals.read_signal(path).data_uv, theirs_uv, rtol=1e-6)
    assert {name: refused(REAL / name).reason for name in REASONS} == REASONS


@pytest.mark.parametrize("suffix", ["set", "bdf"])
def test_samples_are_those_of_mne(tmp_path, suffix):
    path = {"set": write_set_of, "bdf": write_bdf_of}[suffix](tmp_path / f"a.{suffix}", scalp_uv())
    read = {"set": mne.io.read_raw_eeglab, "bdf": mne.io.read_raw_bdf}[suffix]
    np.testing.assert_allclose(signals.read_signal(path).data_uv, read(path, verbose="ERROR").get_data() * 1e6, rtol=1e-6)


RATES = [(512, 500), (512, 100), (500, 100), (91, 100), (97, 1000), (128, 100), (250, 500), (333, 200), (1000, 300)]
RATES += [(1024, 500), (2048, 1000), (4999, 100), (5000, 500)]


@pytest.mark.parametrize(("sfreq_hz", "new_hz"), RATES)
@pytest.mark.parametrize("start", [0, 777])
def test_signals_stay_at_their_time_and_keep_their_amplitude(sfreq_hz, new_hz, start):
    """Within the ripple of MNE's filter (0.2 %), which is divided out."""
    rng, hz = np.random.default_rng(sfreq_hz), 11.3
    kernels = cleaning.kernels(sfreq_hz, *BAND)
    gain = np.prod([abs(np.exp(-2j * np.pi * hz / sfreq_hz * np.arange(len(k))) @ k) for k in kernels])
    for n in (int(17.3 * sfreq_hz) | 1, int(20.1 * sfreq_hz) // 2 * 2):
        time_s, pulse = (start + np.arange(n)) / sfreq_hz, n // 2
        phase = rng.uniform(0, 6)
        data_uv = np.stack([20 * np.sin(2 * np.pi * hz * time_s + phase), 1e3 * (np.arange(n) == pulse)])
        wave, impulse = cleaning.filter_and_resample(data_uv.astype(np.float32), sfreq_hz, new_hz, *BAND, start=start)
        first, stop = cleaning.new_span(start, start + n, sfreq_hz, new_hz)
        new_s, inner = np.arange(first, stop) / new_hz, slice(7 * new_hz, -7 * new_hz)
        angle = 2 * np.pi * hz * new_s + phase
        in_phase, ahead = np.linalg.lstsq(np.stack([np.sin(angle), np.cos(angle)], 1)[inner], wave[inner], rcond=None)[0]
        assert abs(np.arctan2(ahead, in_phase) / (2 * np.pi * hz)) < 1e-5
        assert np.hypot(in_phase, ahead) / 20 == pytest.approx(gain, rel=1e-3)
        probe_hz = np.arange(4, 25, 0.5)
        spectrum = np.exp(-2j * np.pi * probe_hz[:, None] * (new_s - time_s[pulse])) @ impulse
        assert np.abs(np.angle(spectrum) / (2 * np.pi * probe_hz)).max() < 1e-5


@pytest.mark.parametrize(("begin_s", "end_s"), [(12, 30), (0, 12), (10, 12.5)])
@pytest.mark.parametrize("rate", [500, 100])
def test_nothing_of_a_dead_stretch_gets_into_the_rest(begin_s, end_s, rate):
    whole_uv = scalp_uv(15_000)
    begin, end = round(begin_s * 500), round(end_s * 500)
    rng = np.random.default_rng(0)
    cleaned = []
    for held in (0, rng.normal(0, 1e4, (129, 1)), whole_uv[:, begin : begin + 1]):
        data_uv = whole_uv.copy()
        data_uv[:, begin:end] = held * (np.arange(129) < 128)[:, None]
        data_uv[5] = 0
        cleaned.append(cleaning.clean(data_uv, 500, rate, P))
    for data_uv, _, dead in cleaned:
        assert len(dead) == 1
        assert dead[0] == pytest.approx((begin_s * rate, end_s * rate), abs=2)
        live = np.ones(data_uv.shape[1], dtype=bool)
        live[slice(*dead[0])] = False
        inner = live & (np.abs(np.arange(len(live)) - dead[0][0]) > 3)
        assert not data_uv[:, ~live].any()
        np.testing.assert_allclose(data_uv[:, inner], cleaned[0][0][:, inner], atol=0.5)


def test_gaps_are_dead_however_short_and_too_little_is_refused():
    data_uv = scalp_uv(15_000)
    assert cleaning.clean(data_uv, 500, 500, P)[2] == []
    assert cleaning.clean(data_uv, 500, 500, P, gaps=[(7000, 7010)])[2] == [(7000, 7010)]
    data_uv[:, 1200:] = data_uv[:, 1200:1201]
    with pytest.raises(UnusableRecording, match="no_signal"):
        cleaning.clean(data_uv, 500, 500, P)


@pytest.mark.parametrize(("factor", "guess"), [(1e-6, "volts"), (1e-3, "millivolts"), (1e3, "nanovolts")])
def test_amplitudes_of_no_scalp_eeg_are_refused_as_units(factor, guess):
    with pytest.raises(UnusableRecording, match=rf"units: the median channel has .* uV.* {guess}"):
        cleaning.clean(scalp_uv(5000) * np.float32(factor), 500, 500, P)
