"""An ensemble of challenge 1 is its members, each the network of its own seed, from training to deployment."""

from pathlib import Path

import planted
import pytest
import torch

from hbn import params
from hbn.data.dataset import Dataset
from hbn.deploy import challenge_zip, export
from hbn.deploy.runtime import INPUT, session
from hbn.networks import inference
from hbn.training import response_time

P = params.load()
P = P.model_copy(update={"model": P.model.model_copy(update={"size": "tiny"})})
CPU = torch.device("cpu")
PLOTS = Path("plots")
QUICK = {"steps": 4, "batch_size": 8, "warmup_steps": 1, "validate_every": 2}


def trained(dataset: Dataset, **changed) -> torch.nn.Module:
    p = P.model_copy(update={"challenge1": P.challenge1.model_copy(update=QUICK | changed)})
    return response_time.train(p, dataset, response_time.split_trials(dataset), CPU, PLOTS, None)


@pytest.fixture
def dataset(tmp_path, monkeypatch) -> Dataset:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return Dataset.open(planted.write(tmp_path, n_participants=12, n_trials=6), 2.0)


def test_an_ensemble_is_the_mean_of_the_networks_of_its_seeds(dataset, tmp_path):
    alone = [trained(dataset, seed=seed).eval() for seed in (5, 6)]
    together = trained(dataset, seed=5, n_members=2)
    assert {path.name for path in PLOTS.iterdir()} >= {"curve_from_scratch_seed_6.csv"}
    x_uv = dataset.batch_uv(dataset.windows[:4])
    with torch.inference_mode():
        outputs = [network(x_uv) for network in alone]
        assert not torch.equal(*outputs)
        expected = torch.stack(outputs).mean(0)
        assert torch.equal(together(x_uv), expected)

    about = {"model": P.model.model_dump(), "window_s": 2.0, "trial_offset_s": 0.5, **dataset.facts}
    inference.save("challenge1.pt", together, **about)
    assert challenge_zip.misfit(inference.load_file("challenge1.pt", made_by="challenge1")) is None
    network, _ = inference.load_network("challenge1.pt", made_by="challenge1")
    with torch.inference_mode():
        assert torch.equal(network(x_uv), expected)
    graph = export.export(network, tuple(x_uv.shape[1:])).SerializeToString()
    (found,) = session(graph, threads=1).run(None, {INPUT: x_uv.contiguous().numpy()})
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=1e-3)
