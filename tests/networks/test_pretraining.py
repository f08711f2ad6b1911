"""Targets and loss of the pretraining on events, on cases that can be checked by hand."""

import math

import pytest
import torch

from hbn.networks.architecture import KINDS, PRESS
from hbn.networks.pretraining import event_loss, event_targets, loss_of_rates

ONSET = KINDS.index("stimulus_onset")
N = 200


def targets(*events: tuple[int, int, float], n_windows: int = 1, sd_s: float = 0.05) -> torch.Tensor:
    window, kind, at_s = zip(*events, strict=True) if events else ((), (), ())
    return event_targets(
        torch.tensor(window, dtype=torch.long),
        torch.tensor(kind, dtype=torch.long),
        torch.tensor(at_s),
        n_windows,
        N,
        sd_s,
    )


def test_an_event_is_a_gaussian_around_its_time():
    target = targets((0, PRESS, 1.0))  # on the edge between samples 99 and 100
    assert target.shape == (1, N + 1, len(KINDS))
    torch.testing.assert_close(target.sum(1), torch.ones(1, len(KINDS)))
    press = target[0, :, PRESS]
    within_a_sd = math.erf(1 / math.sqrt(2))  # 5 samples on each side
    assert press[95:105].sum().item() == pytest.approx(within_a_sd, abs=1e-5)
    assert press[99] == pytest.approx(press[100].item(), abs=1e-6)
    assert press[100].item() == pytest.approx(math.erf(0.2 / math.sqrt(2)) / 2, abs=1e-5)
    assert press[N] == pytest.approx(0.0, abs=1e-6)
    others = [k for k in range(len(KINDS)) if k != PRESS]
    assert target[0, N, others].tolist() == [1.0] * len(others)  # none
    assert target[0, :N, others].abs().sum() == 0


def test_an_event_on_the_edge_is_half_there_and_several_share_the_distribution():
    target = targets((0, PRESS, 0.0), (1, PRESS, 0.5), (1, PRESS, 1.5), (1, ONSET, 9.0), n_windows=2)
    assert target[0, N, PRESS].item() == pytest.approx(0.5, abs=1e-6)
    assert target[0, :N, PRESS].sum().item() == pytest.approx(0.5, abs=1e-6)
    assert target[1, :100, PRESS].sum().item() == pytest.approx(0.5, abs=1e-6)
    assert target[1, N, PRESS] == pytest.approx(0.0, abs=1e-6)
    assert target[1, N, ONSET] == 1.0  # far outside
    assert targets()[0, N].tolist() == [1.0] * len(KINDS)


def test_the_loss_is_lowest_at_the_target_and_counts_only_what_has_a_weight_or_is_known():
    target = targets((0, PRESS, 1.0), (1, ONSET, 0.3), n_windows=2)
    exact = target.clamp(min=1e-9).log()
    weights = torch.zeros(len(KINDS))
    weights[PRESS] = 2.0
    entropy = -(target * exact).sum(1).mean(0)[PRESS]
    torch.testing.assert_close(event_loss(exact, target, weights), entropy, atol=1e-5, rtol=1e-5)
    assert event_loss(exact + torch.randn_like(exact), target, weights) > entropy
    wrong = exact.clone()
    wrong[..., ONSET] = 7.0
    torch.testing.assert_close(event_loss(wrong, target, weights), entropy, atol=1e-5, rtol=1e-5)
    unknown = target.clone()
    unknown[..., PRESS] = 0.0
    assert event_loss(exact, unknown, weights) == 0


def test_the_loss_of_rates_is_that_of_a_constant_prediction():
    # One window with a press of width 0 in all but name, three without: a rate of a quarter, the same in 200 samples.
    target = targets((0, PRESS, 1.005), n_windows=4, sd_s=1e-4)
    expected = -(0.25 * math.log(0.25 / N) + 0.75 * math.log(0.75))
    assert loss_of_rates(target)[PRESS].item() == pytest.approx(expected, abs=1e-4)
    assert loss_of_rates(target)[ONSET].item() == pytest.approx(0.0, abs=1e-6)
