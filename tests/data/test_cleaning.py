"""The one-pass signal path against MNE's own chain."""

import mne
import numpy as np
import pytest
from small_recordings import scalp_uv

from hbn.data import bids, cleaning

BAND = {"highpass_hz": 0.5, "lowpass_hz": 45.0, "notch_hz": 60.0}


def recording_uv(sfreq_hz: float, duration_s: float, n_channels: int = 6) -> np.ndarray:
    """1/f noise with drift, mains and large offsets."""
    rng = np.random.default_rng(0)
    time_s = np.arange(round(duration_s * sfreq_hz)) / sfreq_hz
    noise = rng.normal(size=(n_channels, len(time_s)))
    noise += 0.05 * np.cumsum(rng.normal(size=noise.shape), axis=1)
    mains = 20 * np.sin(2 * np.pi * 60 * time_s + np.arange(n_channels)[:, None])
    return (8 * noise + mains + 20000 * np.arange(n_channels)[:, None]).astype(np.float32)


@pytest.mark.parametrize(("sfreq_hz", "new_sfreq_hz"), [(500, 500), (500, 100), (250, 500), (100, 100), (500, 200)])
def test_one_pass_equals_the_mne_chain(sfreq_hz, new_sfreq_hz):
    data_uv = recording_uv(sfreq_hz, 61.3)
    ours = cleaning.filter_and_resample(data_uv, sfreq_hz, new_sfreq_hz, **BAND)
    raw = mne.io.RawArray(data_uv.astype(float), mne.create_info(len(data_uv), sfreq_hz, "eeg"), verbose="ERROR")
    raw.filter(0.5, 45.0, verbose="ERROR")
    if sfreq_hz > 120:
        raw.notch_filter(60.0, verbose="ERROR")
    if new_sfreq_hz != sfreq_hz:
        # MNE's automatic padding goes to a power of two, which is no whole number of new samples: its
        # result drifts by up to half a sample. This padding is exact.
        raw.resample(new_sfreq_hz, npad=(-raw.n_times) % 5000 + 5000, verbose="ERROR")
    theirs = raw.get_data()
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float32
    inner = slice(8 * new_sfreq_hz, -8 * new_sfreq_hz)
    error = np.sqrt(np.mean((ours - theirs)[:, inner] ** 2, axis=1) / np.mean(theirs[:, inner] ** 2, axis=1))
    assert error.max() < 0.005


@pytest.mark.parametrize("n_samples", [1, 300, 700])
def test_a_recording_shorter_than_the_filter_equals_mne_too(n_samples):
    data_uv = recording_uv(500, 2.0)[:, :n_samples]
    ours = cleaning.filter_and_resample(data_uv, 500, 500, **BAND)
    assert ours.shape == data_uv.shape
    if n_samples > 1:
        options = {"verbose": "ERROR", "filter_length": "auto"}
        centred = data_uv.astype(float) - data_uv.mean(axis=1, keepdims=True)
        theirs = mne.filter.notch_filter(
            mne.filter.filter_data(centred, 500, 0.5, 45.0, **options), 500, 60.0, **options
        )
        assert np.sqrt(np.mean((ours - theirs) ** 2)) < 0.1 * theirs.std()  # two paddings against one


def test_interpolation_equals_mne_and_leaves_good_channels_alone():
    rng = np.random.default_rng(1)
    data_uv = rng.normal(size=(129, 50)).astype(np.float32)
    bads = ("E3", "E62", "E128")
    ours = cleaning.interpolate(data_uv, bads)
    raw = mne.io.RawArray(data_uv.astype(float), mne.create_info(list(bids.CHANNELS), 100, "eeg"), verbose="ERROR")
    raw.set_montage(bids.MONTAGE)
    raw.info["bads"] = list(bads)
    theirs = raw.interpolate_bads(verbose="ERROR").get_data()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    good = [i for i, name in enumerate(bids.CHANNELS) if name not in bads]
    assert (ours[good] == data_uv[good]).all()


@pytest.mark.parametrize("artefact_uv", [0, 1e5])  # a huge one must not hide the others
def test_bad_channels_are_found_and_the_flat_reference_is_not_one(artefact_uv):
    data_uv = scalp_uv()
    data_uv[40] += artefact_uv * np.random.default_rng(4).normal(size=5000)
    found = cleaning.bad_channels(data_uv, 500, 0.5, 6.0, 0.35)
    assert found == {"E10": "flat", "E21": "noisy", "E71": "uncorrelated"} | ({"E41": "noisy"} if artefact_uv else {})


def test_a_damaged_sample_of_the_reference_reaches_no_other_channel():
    data_uv = scalp_uv()
    healthy = cleaning.bad_channels(data_uv, 500, 0.5, 6.0, 0.35)
    data_uv[cleaning.REFERENCE, 777] = 1e12
    found = cleaning.bad_channels(data_uv, 500, 0.5, 6.0, 0.35)
    assert found == healthy | {"Cz": "noisy"}
    assert np.abs(cleaning.interpolate(data_uv, tuple(found))).max() < 1e4


def test_average_reference_makes_cz_a_signal():
    rng = np.random.default_rng(3)
    true_uv = rng.normal(size=(129, 100)).astype(np.float32)
    recorded_uv = true_uv - true_uv[cleaning.REFERENCE]
    expected_uv = true_uv - true_uv.mean(axis=0)
    np.testing.assert_allclose(cleaning.average_reference(recorded_uv), expected_uv, atol=1e-5)
