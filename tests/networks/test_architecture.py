"""The networks: one set of weights at every rate, flat channels do no harm, losses see what they should."""

import numpy as np
import pytest
import torch

from hbn.data import bids
from hbn.files import HbnError
from hbn.networks import architecture, inference

WINDOW_S, OFFSET_S = 2.0, 0.5


def positions_m() -> torch.Tensor:
    return torch.from_numpy(bids.electrode_positions_m()).float()


def networks(sfreq_hz: int) -> list[torch.nn.Module]:
    torch.manual_seed(0)
    encoder = architecture.Encoder(positions_m(), sfreq_hz, WINDOW_S, "tiny", 8, 0.1)
    return [
        architecture.ResponseTime(encoder, WINDOW_S, OFFSET_S).eval(),
        architecture.Factors(encoder, n_regions=5, n_outputs=4).eval(),
    ]


def eeg_uv(sfreq_hz: int, n: int = 3) -> torch.Tensor:
    """The same windows (N, 129, T) at any rate: sums of sines below 45 Hz."""
    rng = np.random.default_rng(0)
    hz, phase = rng.uniform(1, 44, size=(2, n, 129, 6, 1))
    t = np.arange(round(WINDOW_S * sfreq_hz)) / sfreq_hz
    return torch.from_numpy(10 * np.sin(2 * np.pi * hz * t + phase).sum(2)).float()


def normalised(encoder: architecture.Encoder, x_uv: torch.Tensor) -> torch.Tensor:
    return encoder.normalise(encoder.repair(encoder.resample(x_uv)))


@pytest.mark.parametrize("index", [0, 1])
def test_the_same_weights_give_the_same_output_at_every_rate(index):
    expected = networks(100)[index](eeg_uv(100))
    assert expected.shape == (3, (3 + 1 + 200, 4)[index])
    for sfreq_hz in (200, 500, 1000):
        network = networks(sfreq_hz)[index]
        network.load_state_dict(networks(100)[index].state_dict())
        torch.testing.assert_close(network(eeg_uv(sfreq_hz)), expected, atol=1e-4, rtol=1e-4)


def test_other_rates_and_windows_are_refused():
    for sfreq_hz, window_s in ((250, 2.0), (500, 2.05)):
        with pytest.raises(ValueError, match="multiple of"):
            architecture.Encoder(positions_m(), sfreq_hz, window_s, "tiny", 8, 0.1)


@pytest.mark.parametrize("index", [0, 1])
def test_flat_and_constant_channels_give_finite_outputs_and_gradients(index):
    network = networks(500)[index]
    x_uv = eeg_uv(500)
    x_uv[:, 128] = 0  # Cz
    x_uv[0] = 0
    output = network(x_uv)
    output.sum().backward()
    assert output.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None)
    with torch.no_grad():
        shifted = x_uv.clone()
        shifted[:, 128] = 300.0  # constant, as an electrode with a drift that was not removed
        encoder = network.encoder
        torch.testing.assert_close(encoder(shifted), encoder(x_uv), atol=1e-5, rtol=1e-5)


def test_one_artefact_has_a_bounded_effect():
    encoder = networks(500)[0].encoder
    x_uv = eeg_uv(500)
    x_uv[:, 5, 500] = 1e6
    assert normalised(encoder, x_uv).abs().max() <= architecture.CLIP


def test_response_time_lies_where_there_was_a_response():
    network = networks(500)[0]
    output = network(eeg_uv(500))
    assert ((output[:, 0] > 0) & (output[:, 0] < OFFSET_S + WINDOW_S)).all()
    assert ((output[:, 1:] > 0) & (output[:, 1:] < 1)).all()


def test_target_distributions_sum_to_one_and_their_mean_is_the_response_time():
    network = networks(500)[0]
    rt_s = torch.tensor([1.0, 1.63, 2.2, 0.2, 9.0, float("nan")])
    target = network.targets(rt_s, sd_s=0.1)
    torch.testing.assert_close(target.sum(1), torch.ones(6))
    assert (target >= 0).all()
    mean_s = (target[:3, :-1] * network.centres_s).sum(1)
    torch.testing.assert_close(mean_s, rt_s[:3], atol=0.005, rtol=0)
    assert target[3, -2] > 0.99  # before the window
    assert target[4, -3] == pytest.approx(1.0)  # after the window: the last bin
    assert target[5].tolist() == [0.0] * (target.shape[1] - 1) + [1.0]


def spoil(x_uv: torch.Tensor, dead: int, huge: int) -> torch.Tensor:
    """Windows (B, 129, 1000) against their average, in which a channel recorded nothing and one is all noise."""
    x_uv = x_uv - x_uv[:, 128:]  # as recorded, against Cz
    x_uv[:, dead] = 0.0
    x_uv[:, huge] = 900 * torch.randn(len(x_uv), 1000, generator=torch.Generator().manual_seed(1))
    return x_uv - x_uv.mean(1, keepdim=True)  # some of the huge channel is in all others


def smooth_eeg_uv(n: int = 3) -> torch.Tensor:
    """Windows (N, 129, 1000) of equally strong channels of which neighbours record nearly the same, as on a scalp."""
    sources_uv = eeg_uv(500, n)
    x_uv = architecture.smooth_components(positions_m(), 40) @ sources_uv[:, :40] + 0.1 * sources_uv
    return 20 * x_uv / x_uv.square().mean((0, 2), keepdim=True).sqrt()


def adapted_to_smooth_eeg() -> tuple[architecture.Encoder, torch.Tensor]:
    """An encoder whose whitener fits to the windows (20, 129, 1000) beside it, which are against their average."""
    encoder = networks(500)[0].encoder
    x_uv = smooth_eeg_uv(20)
    x_uv = x_uv - x_uv.mean(1, keepdim=True)
    encoder.adapt(x_uv)
    return encoder, x_uv


def most_likely(encoder: architecture.Encoder, x: torch.Tensor, bad: list[int]) -> torch.Tensor:
    """By the textbook: the mean of a Gaussian given its other variables, C_bg C_gg^-1 x_g."""
    covariance = torch.linalg.inv(encoder.whitener.double() @ encoder.whitener.double())
    good = [c for c in range(129) if c not in bad]
    return covariance[bad][:, good] @ torch.linalg.inv(covariance[good][:, good]) @ x[:, good].double()


def test_a_bad_channel_is_what_the_good_ones_make_most_likely():
    encoder, x_uv = adapted_to_smooth_eeg()
    bad = [5, 70]
    repaired = encoder.repair(encoder.resample(spoil(x_uv, *bad)))
    expected = most_likely(encoder, repaired, bad).float()
    torch.testing.assert_close(repaired[:, bad], expected, atol=0.02 * expected.std().item(), rtol=0)
    clean = encoder.resample(x_uv)
    assert (repaired[:, bad] - clean[:, bad]).std() < 0.25 * clean[:, bad].std()


def test_many_dead_channels_are_what_the_good_ones_make_most_likely():
    encoder, x_uv = adapted_to_smooth_eeg()
    dead = list(range(0, 100, 5))
    x_uv = x_uv - x_uv[:, 128:]
    x_uv[:, dead] = 0.0
    repaired = encoder.repair(encoder.resample(x_uv - x_uv.mean(1, keepdim=True)))
    expected = most_likely(encoder, repaired, dead).float()
    assert (repaired[:, dead] - expected).std() < 0.1 * expected.std()


def test_both_of_two_bridged_channels_are_filled_in():
    encoder, x_uv = adapted_to_smooth_eeg()
    pair = [40, 41]
    x_uv[:, pair] = x_uv[:, pair].mean(1, keepdim=True)
    repaired = encoder.repair(encoder.resample(x_uv))
    expected = most_likely(encoder, repaired, pair).float()
    torch.testing.assert_close(repaired[:, pair], expected, atol=0.05 * expected.std().item(), rtol=0)


@pytest.mark.parametrize("index", [0, 1])
def test_bad_channels_hardly_change_the_output(index):
    """One dead and one huge channel: much nearer to the clean window's output than another window's is."""
    network = networks(500)[index]
    x_uv = smooth_eeg_uv(20)
    x_uv = x_uv - x_uv.mean(1, keepdim=True)
    network.encoder.adapt(x_uv)
    with torch.no_grad():
        clean, spoilt = network(x_uv)[:, :4], network(spoil(x_uv, 5, 70))[:, :4]
        assert ((spoilt - clean).std(0) < 0.2 * clean.std(0)).all()


def test_the_distribution_is_that_of_the_outcomes_with_a_response():
    """By hand: logits of samples, of an early press and of no response; at a temperature of 2, their square roots."""
    network = networks(500)[0]
    probability = torch.rand(2, 202, generator=torch.Generator().manual_seed(1)) + 0.1
    answered = torch.cat([probability[:, 200:201], probability[:, :200]], 1)
    torch.testing.assert_close(network.distribution(probability.log()), answered / answered.sum(1, keepdim=True))
    network.temperature.fill_(2.0)
    root = answered.sqrt()
    torch.testing.assert_close(network.distribution(probability.log()), root / root.sum(1, keepdim=True))
    x_uv = eeg_uv(500)
    torch.testing.assert_close(network(x_uv)[:, 3:], network.distribution(network.logits(x_uv)[0]))


def test_a_bad_channel_hidden_by_a_worse_one_is_found_and_cz_is_never_bad():
    encoder = networks(100)[0].encoder
    x_uv = eeg_uv(100)
    rng = torch.Generator().manual_seed(2)
    x_uv[:, 7] = 1e5 * torch.randn(3, 200, generator=rng)
    x_uv[:, 9] *= 20  # 200 uV, while the first one puts 775 uV into every channel
    x_uv -= x_uv.mean(1, keepdim=True)
    x_uv[:, 128] = 0.0
    x = normalised(encoder, x_uv)  # without a whitener yet, what is filled in is zero
    assert x[:, :, [7, 9]].abs().max() == 0
    kept = x.square().sum(1) > 0
    kept[:, [7, 9]] = True
    assert kept.all()


def test_a_window_moved_in_time_has_the_same_features_away_from_its_ends():
    encoder = networks(100)[0].encoder
    long = eeg_uv(100)
    long = torch.cat([long, long.flip(-1)], dim=-1)  # 4 s
    x = normalised(encoder, long)
    with torch.no_grad():
        early, late = (encoder.features(x[:, start : start + 300])[0] for start in (0, 40))
    torch.testing.assert_close(early[:, 80:90], late[:, 60:70], atol=1e-4, rtol=1e-4)


def test_saved_files_load_back_and_damaged_ones_name_the_stage(tmp_path):
    network = networks(500)[0]
    inference.save(tmp_path / "a.pt", network, window_s=2.0)
    loaded = inference.load_file(tmp_path / "a.pt", made_by="challenge1")
    assert loaded["window_s"] == 2.0
    network.load_state_dict(loaded["state"])
    (tmp_path / "b.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:5000])
    for name in ("b.pt", "c.pt"):
        with pytest.raises(HbnError, match=r"dvc repro.*challenge1"):
            inference.load_file(tmp_path / name, made_by="challenge1")
    first = (tmp_path / "a.pt").read_bytes()
    inference.save(tmp_path / "a.pt", network, window_s=2.0)
    assert (tmp_path / "a.pt").read_bytes() == first
