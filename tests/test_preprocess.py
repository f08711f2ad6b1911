"""The stage preprocess on small recordings: contents, incremental builds, rejections."""

from types import SimpleNamespace

import numpy as np
import pytest
from test_bids import write_set as with_names
from threadpoolctl import threadpool_info

import preprocess
from hbn import bids, params, signal
from hbn.files import HbnError, read_json, read_tsv, sha256, write_tsv
from hbn.sources import write_set

SFREQ_HZ = 250


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """An empty working directory, as the stages see it."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parameters(workers: int = 1, **changes) -> SimpleNamespace:
    whole = params.load(preprocess.Path(__file__).parents[1] / "params.yaml")
    return SimpleNamespace(
        data=SimpleNamespace(url="simulated://{release}", endpoint_url=""),
        preprocess=whole.preprocess.model_copy(update={"sfreq_hz": 100, **changes}),
        exec=whole.exec.model_copy(update={"workers": workers}),
    )


def recording_uv(seed: int, duration_s: float = 6.0, sfreq_hz: float = SFREQ_HZ) -> np.ndarray:
    """Smooth 1/f sources on the net with offsets, mains and a dead channel, against Cz."""
    rng = np.random.default_rng(seed)
    positions_m = bids.electrode_positions_m()
    n = round(duration_s * sfreq_hz)
    sources = np.cumsum(rng.normal(size=(30, n)), axis=1) + 5 * rng.normal(size=(30, n))
    distance_m = np.linalg.norm(positions_m[:, None] - positions_m[rng.permutation(128)[:30]], axis=-1)
    data_uv = np.exp(-((distance_m / 0.04) ** 2)) @ sources + rng.normal(size=(129, n))
    data_uv += 3 * np.sin(2 * np.pi * 60 * np.arange(n) / sfreq_hz) * rng.uniform(0.5, 2, (129, 1))
    data_uv += rng.uniform(-20000, 20000, size=(129, 1))
    data_uv -= data_uv[128]
    data_uv[6] = 0
    return data_uv.astype(np.float32)


def add(participant: str, data_uv: np.ndarray, task: str = "RestingState", sfreq_hz: float = SFREQ_HZ):
    path = preprocess.Path(f"data/raw/R1/{participant}/eeg/{participant}_task-{task}_eeg.set")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_set(path, data_uv, sfreq_hz)
    return path


def build(p: SimpleNamespace) -> dict[str, str]:
    """Write the manifest of what is there, run the stage and return the checksums of all it wrote."""
    root = preprocess.Path("data/raw/R1")
    paths = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*_eeg.*"))]
    write_tsv(root / "manifest.tsv", [{"path": one, "sha256": sha256(root / one)} for one in paths], ["path", "sha256"])
    preprocess.main(p, "R1")
    outputs = [path for top in ("data/preprocessed", "metrics", "plots") for path in preprocess.Path(top).rglob("*.*")]
    return {path.as_posix(): sha256(path) for path in outputs}


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
    assert facts["source_sha256"] == sha256(source)
    assert np.log2(facts["scale_uv"]) % 1 == 0
    filtered_uv = signal.filter_and_resample(source_uv, SFREQ_HZ, 100, 0.5, 45.0, 60.0)
    expected_uv = signal.average_reference(signal.interpolate(filtered_uv, ("E7", "E51")))
    np.testing.assert_allclose(array.T.astype(float) * facts["scale_uv"], expected_uv, rtol=2**-11, atol=1e-4)
    assert facts["spectrum_before_db"]["60"] > facts["spectrum_before_db"]["55"] + 3


def test_one_participant_at_a_time_equals_all_at_once(workspace, monkeypatch, tmp_path_factory):
    made = []
    prepare = preprocess.prepare

    def counted(*arguments):
        made.append({pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"})
        return prepare(*arguments)

    monkeypatch.setattr(preprocess, "prepare", counted)
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
        return (function(*positional) for function, positional, _ in jobs)

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
    with_names(add("sub-few", good_uv), good_uv[:128], bids.CHANNELS[:128])
    with_names(add("sub-name", good_uv), good_uv, ("X1", *bids.CHANNELS[1:]))
    cut = add("sub-cut", good_uv)
    cut.write_bytes(cut.read_bytes()[:100_000])
    noisy_uv = good_uv.copy()
    noisy_uv[:60] = 40 * np.random.default_rng(9).normal(size=(60, 1500))
    add("sub-noisy", noisy_uv, task="ThePresent")
    build(parameters(max_rejected_fraction=0.9))
    assert rejections() == {
        **{"sub-short": "too_short", "sub-flat": "bad_channels", "sub-rate": "sampling_rate", "sub-nan": "not_finite"},
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
    write_tsv("data/raw/R1/manifest.tsv", [], ["path", "sha256"])
    with pytest.raises(HbnError, match=r"sub-A_task-RestingState_eeg\.set is not listed"):
        preprocess.main(parameters(), "R1")
