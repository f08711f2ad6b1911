"""The whole pipeline from an object store that holds releases where the public buckets hold them."""

import pytest
import s3_server
from clone import MINIATURE, Clone, finite

from hbn import params

# So many that the real participants are in both splits.
SIZES = {**MINIATURE, "data.n_participants": 4, "splits.validation_fraction": 0.3}
SMALL = {"sfreq_hz": 100, "lead_in_s": 4.0}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with s3_server.Server(tmp_path_factory.mktemp("s3")) as one:
        yield one


@pytest.mark.campaign
@pytest.mark.parametrize(("preset", "suffix"), [("hbn", "set"), ("challenge-mini", "bdf")])
def test_the_whole_pipeline_by_changing_only_preset_and_endpoint(server, hbn_metadata, tmp_path, preset, suffix):
    """hbn: R1's real participants and event tables, signals simulated at 500 Hz; all else is simulated at 100 Hz."""
    real = {"metadata_dir": str(hbn_metadata), "sfreq_hz": 500}
    for release in SIZES["data.releases"]:
        settings = real if (preset, release) == ("hbn", "R1") else SMALL
        folder, tasks = tmp_path / release, tuple(SIZES["data.tasks"])
        s3_server.simulate(folder, release, SIZES["data.n_participants"], tasks, file_format=suffix, **settings)
        server.upload(folder, params.PRESETS[preset].removeprefix("s3://").format(release=release))
    clone = Clone(tmp_path / "clone", {**SIZES, "data.preset": preset, "data.endpoint_url": server.url})
    clone("dvc", "repro")
    assert clone.ran(clone("dvc", "repro")) == set()
    for release in SIZES["data.releases"]:
        assert clone.metrics(f"fetch/{release}")["source"] == f"{params.PRESETS[preset]} at {server.url}"
        recordings = (clone.root / "data/raw" / release).glob(f"sub-*/eeg/*_eeg.{suffix}")
        assert len(list(recordings)) == SIZES["data.n_participants"]
        windows = clone.metrics(f"windows/{release}")
        assert sum(windows["trials"].values()) == 24 * SIZES["data.n_participants"]
    for name in ("challenge1", "challenge2", "submission", "quantize", "benchmark"):
        assert finite(clone.metrics(name))
