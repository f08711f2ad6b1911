"""The whole pipeline on the metadata of a real release, whose signals are simulated."""

from clone import MINIATURE, Clone, finite


def test_real_metadata_with_simulated_signals(hbn_metadata, tmp_path):
    changes = {
        **MINIATURE,
        **{"data.releases": ["R1"], "data.n_participants": 0, "data.tasks": ["contrastChangeDetection"]},
        **{"simulator.metadata_dir": str(hbn_metadata), "splits.test_releases": [], "splits.test_fraction": 0.3},
    }
    clone = Clone(tmp_path / "clone", changes)
    clone("dvc", "repro", "submission")  # what follows it sees networks alone, and whose they are does not matter
    # Counted with awk in the real event tables: 11 participants with 33 files of 24 own trials.
    windows = clone.metrics("windows/R1")
    assert windows["participants"] == 11
    assert windows["recordings"] == {"contrastChangeDetection": 33}
    assert windows["trials"] == {"correct": 612, "wrong": 59, "miss": 121}
    assert windows["dropped_trials"] == {"foreign_block": 168}
    absent = clone.metrics("fetch/R1")["called_available_but_absent"]
    assert "sub-NDARBX121UM9 contrastChangeDetection_1" in absent
    assert all(finite(clone.metrics(name)) for name in ("challenge1", "challenge2", "submission"))
