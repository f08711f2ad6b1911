"""Pretraining sees events of other tasks in training participants alone, and learns from their times alone."""

import dataclasses

import numpy as np
import planted
import pytest
import torch

from hbn import params
from hbn.data.dataset import Dataset, Events, response_times_s
from hbn.files import HbnError
from hbn.networks.architecture import KINDS, PRESS, ResponseTime
from hbn.networks.inference import adapted_encoder
from hbn.networks.pretraining import EventPretraining, event_loss
from hbn.scoring import metrics
from hbn.training.event_windows import EventWindows, kind_of
from hbn.training.loop import fit
from hbn.training.response_time import outputs

P = params.load()
PRETRAIN = P.pretrain.model_copy(update={"batch_size": 32, "steps": 60, "validate_every": 60, "warmup_steps": 10})
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    """Half of the recordings, none of a test participant, are of symbolSearch, one is a film with others' events."""
    torch.set_num_threads(1)
    dataset = Dataset.open(planted.write(tmp_path_factory.mktemp("planted")), 2.0)
    task = np.full(len(dataset.cache.recordings), dataset.events.tasks.index("contrastChangeDetection"))
    for i, recording in enumerate(dataset.cache.recordings):
        if i % 12 < 6 and dataset.participants[recording["participant_id"]]["split"] != "test":
            recording["task"], task[i] = "symbolSearch", dataset.events.tasks.index("symbolSearch")
    dataset.cache.recordings[6]["task"] = "DespicableMe"  # its events stay those of contrast change detection
    events = dataclasses.replace(dataset.events, task=task[dataset.events.recording])
    return dataclasses.replace(dataset, events=events)


def drawn(windows: EventWindows, n_steps: int = 60) -> np.ndarray:
    return np.concatenate([windows(step) for step in range(n_steps)])


@pytest.mark.parametrize("split", ["train", "validation"])
def test_no_window_is_of_another_split_or_of_a_task_that_is_left_out(dataset, split):
    windows = drawn(EventWindows(dataset, split, PRETRAIN))
    recordings = [dataset.cache.recordings[i] for i in np.unique(windows[:, 0])]
    assert {dataset.participants[recording["participant_id"]]["split"] for recording in recordings} == {split}
    assert {recording["task"] for recording in recordings} == {"symbolSearch"}
    assert len(recordings) == sum(
        recording["task"] == "symbolSearch" and dataset.participants[recording["participant_id"]]["split"] == split
        for recording in dataset.cache.recordings
    )


def test_events_of_a_task_that_is_left_out_are_unseen_in_others_files(dataset):
    """The film holds presses of contrast change detection every 3 s: no window is far enough from them."""
    windows = EventWindows(dataset, "train", PRETRAIN)
    assert 6 not in windows.rows[:, 0]
    assert 6 not in windows.recording
    everything = EventWindows(dataset, "train", PRETRAIN.model_copy(update={"excluded_tasks": []}))
    assert 6 in everything.rows[:, 0]
    far = dataclasses.replace(dataset.events, sample=np.where(dataset.events.recording == 6, 50, dataset.events.sample))
    spaced = EventWindows(dataclasses.replace(dataset, events=far), "train", PRETRAIN)
    starts = spaced.rows[spaced.rows[:, 0] == 6, 1]
    assert starts.min() == 50 + 300 + 50  # the first row of whole seconds that starts 3 s after the event
    assert 6 not in spaced.recording


def test_windows_start_at_any_sample_but_never_across_a_gap_in_the_rows(dataset):
    rows = dataset.windows[dataset.windows[:, 1] != 1000]  # as a boundary between 10 and 13 s leaves it
    rows = rows[(rows[:, 1] < 900) | (rows[:, 1] > 1100)]
    windows = drawn(EventWindows(dataclasses.replace(dataset, windows=rows), "train", PRETRAIN))
    assert len(np.unique(windows[:, 1] % 100)) > 80
    assert not np.any((windows[:, 1] > 800) & (windows[:, 1] < 1200))
    last = max(int(recording["samples"]) for recording in dataset.cache.recordings)
    assert windows[:, 1].min() >= 0
    assert windows[:, 1].max() + 200 <= last


def test_targets_stand_where_the_events_are(dataset):
    windows = EventWindows(dataset, "train", PRETRAIN)
    event = np.flatnonzero(windows.first < windows.end)[5]
    recording, sample = windows.recording[event], windows.at[event] & 0xFFFFFFFF
    target = windows.targets(np.array([[recording, sample - 70]]), 200)[0]
    assert target[:, PRESS].sum().item() == pytest.approx(1.0, abs=1e-5)
    assert abs(int(target[:140, PRESS].argmax()) - 70) <= 1
    assert target[200, 1:].tolist() == [1.0] * (len(KINDS) - 1)


def test_presses_of_learning_are_unknown_since_they_have_no_rows(dataset):
    recordings = [dict(row, task="seqLearning6target") for row in dataset.cache.recordings]
    with pytest.MonkeyPatch.context() as during:
        during.setattr(dataset.cache, "recordings", recordings)
        everything = EventWindows(dataset, "train", PRETRAIN.model_copy(update={"excluded_tasks": []}))
    target = everything.targets(everything(0), 200)
    assert target[..., PRESS].sum() == 0
    torch.testing.assert_close(target[..., 1:].sum(1), torch.ones(32, len(KINDS) - 1))


def test_draws_depend_on_seed_and_step_alone(dataset):
    first, second = (EventWindows(dataset, "train", PRETRAIN) for _ in range(2))
    first(0)
    assert (first(7) == second(7)).all()
    assert not (first(7) == first(8)).all()


def test_every_kind_of_the_dataset_is_read_out_as_one_of_the_networks(dataset):
    kinds = {name: kind_of(name) for name in dataset.events.kinds}
    assert {name for name, kind in kinds.items() if kind == PRESS} == {"press_left", "press_right", "press"}
    assert set(kinds.values()) == set(range(len(KINDS)))


def test_without_any_event_of_another_task_it_says_what_to_add(dataset):
    events = dataclasses.replace(dataset.events, task=np.full_like(dataset.events.task, 2))
    with pytest.raises(HbnError, match=r"add tasks to data\.tasks"):
        EventWindows(dataclasses.replace(dataset, events=events), "train", PRETRAIN)
    nothing = PRETRAIN.model_copy(update={"excluded_tasks": list(dataset.events.tasks)})
    with pytest.raises(HbnError, match="holds no window of a task other than"):
        EventWindows(dataset, "train", nothing)


def zero_shot_r(dataset: Dataset, folder) -> float:
    """Pearson r of the press read-out on the test trials of contrast change detection, no label of which was seen."""
    torch.manual_seed(1)
    network = EventPretraining(adapted_encoder(dataset, P.model))
    windows = EventWindows(dataset, "train", PRETRAIN)
    n_samples = network.encoder.n_samples

    def loss(network: EventPretraining, step: int) -> torch.Tensor:
        rows = windows(step)
        return event_loss(network(dataset.batch_uv(rows)), windows.targets(rows, n_samples), windows.weights)

    validations = iter((1.0, 0.0))  # the start is not what is kept
    paths = folder / "checkpoint.pt", folder / "curve.csv"
    fit(network, loss, lambda network: next(validations), PRETRAIN, *paths, windows)
    reader = ResponseTime(network.encoder, 2.0, P.windows.trial_offset_s)
    reader.events = network.events
    trials = dataset.split_trials("test")
    rt_s = response_times_s(trials)
    known = ~np.isnan(rt_s)
    return metrics.pearson_r(rt_s[known], outputs(reader.eval(), dataset, trials, CPU)[known, 0])


def test_presses_of_another_task_tell_response_times_and_shuffled_ones_do_not(dataset, tmp_path):
    for name in ("real", "shuffled"):
        (tmp_path / name).mkdir()
    assert zero_shot_r(dataset, tmp_path / "real") > 0.9
    rng = np.random.default_rng(0)
    length = int(dataset.cache.recordings[0]["samples"])
    events: Events = dataclasses.replace(dataset.events, sample=rng.integers(0, length, len(dataset.events.sample)))
    assert abs(zero_shot_r(dataclasses.replace(dataset, events=events), tmp_path / "shuffled")) < 0.5
