"""The real `dvc`: where data comes from decides nothing but what fetch says of it."""

import shutil

from clone import MINIATURE, Clone


def test_a_new_address_of_the_same_bytes_reruns_fetch_alone(tmp_path):
    clone = Clone(tmp_path / "clone", MINIATURE)
    clone("dvc", "repro", "fetch")
    shutil.copytree(clone.root / "data/raw", tmp_path / "here")
    clone.change({"data.url": f"{tmp_path}/here/{{release}}"})
    assert clone.ran(clone("dvc", "repro", "assemble")) >= {"fetch", "preprocess", "cache_windows", "assemble"}
    (tmp_path / "here").rename(tmp_path / "there")
    clone.change({"data.url": f"{tmp_path}/there/{{release}}"})
    assert clone.ran(clone("dvc", "repro", "assemble")) == {"check_params", "fetch"}
    assert clone.metrics("fetch/R1")["source"] == f"{tmp_path}/there/{{release}}"
    # A copy of simulated data is still simulated.
    assert clone.metrics("fetch/R1")["dataset"] == clone.metrics("dataset")["source"] == "simulated"
    shutil.rmtree(clone.root / ".scratch/raw")
    clone.change({"exec.transfers": 3})
    assert clone.ran(clone("dvc", "repro", "assemble")) <= {"check_params"}
