"""The stage preprocess on small recordings: contents, incremental builds, rejections."""

import numpy as np
import pytest
from small_recordings import SFREQ_HZ, add, build, parameters, recording_uv
from small_recordings import write_set_of as with_names
from threadpoolctl import threadpool_info

import preprocess
from hbn.data import bids, cleaning, preprocessing
from hbn.files import HbnError, md5, read_json, read_tsv, write_tsv


def rejections() -> dict[str, str]:
    rows = read_tsv("data/preprocessed/R1/rejected.tsv")
    return {row["recording"].split("_")[0]: row["reason"] for row in rows}


def test_output_is_the_signal_path_in_time_major_half_precision(workspace):
    source_uv = recording_uv(1)
    source_uv[50, 700] += 30000  # a pop that a fixed unit could not hold
    source = add("sub-A", source_uv)
    p = parameters()
    build(p)
    stem = "data/preprocessed/R1/sub-A/sub-A_task-RestingState_eeg"
    array, facts = np.load(f"{stem}.npy", mmap_mode="r"), read_json(f"{stem}.json")
    assert (array.shape, array.dtype) == ((600, 129), np.float16)
    assert array.flags.c_contiguous
    assert facts["bad_channels"] == {"E7": "flat", "E51": "noisy"}
    assert (facts["sfreq_hz"], facts["samples"], facts["notched"]) == (100, 600, True)
    assert facts["source_md5"] == md5(source)
    assert np.log2(facts["scale_uv"]) % 1 == 0
    filtered_uv = cleaning.filter_and_resample(source_uv, SFREQ_HZ, 100, 0.5, 45.0, 60.0)
    expected_uv = cleaning.average_reference(cleaning.interpolate(filtered_uv, ("E7", "E51")))
    np.testing.assert_allclose(array.T.astype(float) * facts["scale_uv"], expected_uv, rtol=2**-11, atol=1e-4)
    assert facts["spectrum_before_db"]["60"] > facts["spectrum_before_db"]["55"] + 3


def test_one_participant_at_a_time_equals_all_at_once(workspace, monkeypatch, tmp_path_factory):
    made = []
    prepare = preprocessing.prepare

    def counted(*arguments):
        made.append({pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"})
        return prepare(*arguments)

    monkeypatch.setattr(preprocessing, "prepare", counted)
    for i, name in enumerate(("sub-A", "sub-B", "sub-C")):
        add(name, recording_uv(i))
        grown = build(parameters())
        assert len(made) == i + 1
    assert build(parameters(max_rejected_fraction=0.5)) == grown
    assert made == [{1}] * 3  # whatever the number of workers and cores
    monkeypatch.chdir(tmp_path_factory.mktemp("clean"))
    for i, name in enumerate(("sub-A", "sub-B", "sub-C")):
        add(name, recording_uv(i))
    assert build(parameters(workers=2)) == grown
    add("sub-B", recording_uv(7))
    changed = {path for path, checksum in build(parameters()).items() if checksum != grown[path]}
    assert {path for path in changed if "sub-" in path} == {path for path in grown if "sub-B" in path}
    preprocess.shutil.rmtree("data/raw/R1/sub-B")
    assert not any("sub-B" in path for path in build(parameters()))


def test_what_a_lost_worker_had_half_written_is_no_part_of_the_output(workspace, monkeypatch):
    add("sub-A", recording_uv(0))
    expected = build(parameters())

    def in_order(jobs, execution):
        half = preprocess.Path("data/preprocessed/R1/sub-A/.sub-A_task-RestingState_eeg.npy.0123456789ab")
        half.parent.mkdir(parents=True)
        half.write_bytes(b"half")
        return (function(*arguments) for function, *arguments in jobs)

    monkeypatch.setattr(preprocess, "in_order", in_order)
    assert build(parameters()) == expected


def test_every_unusable_recording_is_listed_with_its_reason(workspace):
    good_uv = recording_uv(0)
    add("sub-good", good_uv)
    add("sub-short", good_uv[:, :500])
    add("sub-flat", 0 * good_uv)
    add("sub-rate", good_uv, sfreq_hz=80)
    add("sub-nan", np.where(np.arange(1500) == 9, np.nan, good_uv))
    add("sub-link", good_uv).write_text("../../../.git/annex/objects/x/y/MD5E-s1--0.set")
    with_names(add("sub-few", good_uv), good_uv[:127], bids.CHANNELS[:127])
    with_names(add("sub-name", good_uv), good_uv, ("F3", *bids.CHANNELS[1:]))
    cut = add("sub-cut", good_uv)
    cut.write_bytes(cut.read_bytes()[:100_000])
    noisy_uv = good_uv.copy()
    noisy_uv[:60] = 40 * np.random.default_rng(9).normal(size=(60, 1500))
    add("sub-noisy", noisy_uv, task="ThePresent")
    build(parameters(max_rejected_fraction=0.9))
    assert rejections() == {
        **{"sub-short": "too_short", "sub-flat": "no_signal", "sub-rate": "sampling_rate", "sub-nan": "not_finite"},
        **{"sub-link": "pointer", "sub-cut": "unreadable", "sub-noisy": "bad_channels"},
        **{"sub-few": "channels", "sub-name": "channels"},
    }
    metrics = read_json("metrics/preprocess/R1.json")
    assert metrics["recordings"] == {"RestingState": 9, "ThePresent": 1}
    assert metrics["rejected"]["ThePresent"] == {"bad_channels": 1}
    assert sum(metrics["rejected"]["RestingState"].values()) == 8
    assert metrics["hours"] == pytest.approx(6 / 3600, rel=1e-5)
    assert metrics["source"] == "simulated"


def test_too_many_rejections_stop_the_stage(workspace):
    for name in ("sub-A", "sub-B"):
        add(name, recording_uv(0, duration_s=2.0))
    add("sub-C", recording_uv(0))
    with pytest.raises(HbnError, match=r"2 of 3 .*'too_short': 2.*rejected\.tsv"):
        build(parameters())
    assert set(rejections()) == {"sub-A", "sub-B"}
    build(parameters(max_rejected_fraction=0.7))
    preprocess.shutil.rmtree("data/raw/R1/sub-C")
    with pytest.raises(HbnError, match="2 of 2"):  # nothing is left to summarise
        build(parameters(max_rejected_fraction=1.0))


def test_missing_inputs_are_named(workspace):
    with pytest.raises(HbnError, match=r"data/raw/R1 does not exist; run `dvc repro fetch@R1`"):
        preprocess.main(parameters(), "R1")
    add("sub-A", recording_uv(0))
    with pytest.raises(HbnError, match=r"manifest\.tsv does not exist"):
        preprocess.main(parameters(), "R1")
    write_tsv("data/raw/R1/manifest.tsv", [], ["path", "md5"])
    with pytest.raises(HbnError, match=r"sub-A_task-RestingState_eeg\.set is not listed"):
        preprocess.main(parameters(), "R1")
