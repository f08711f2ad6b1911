"""The windows for pretraining and the events in them, of all tasks except the excluded ones."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hbn import params
from hbn.data.dataset import Dataset
from hbn.data.windows import samples
from hbn.files import HbnError
from hbn.networks.architecture import KINDS
from hbn.networks.pretraining import event_targets
from hbn.training import device

# The answers in seqLearning are mouse clicks that have no event rows: nothing says where a press is, or that none is.
WITHOUT_ROWS = {"seqLearning": ("press",)}
APART_S = 3.0  # between a window and an event of a task that is left out
REACH_SD = 4.0  # widths of an event's Gaussian beyond which nothing of it is left


class EventWindows:
    """Draws windows of one split, balanced over kinds of events, tasks and participants, with their target events.

    A share `around_events` of the windows holds an event. Its kind is drawn by `weights`, then a task with such
    events, one of its participants, one of the events and the position of the window around it. The other windows
    lie anywhere: a task, a participant and a position are drawn. A draw depends on (seed, step) alone, so resuming is
    exact.

    Windows come from the rows of `dataset.windows`; between two consecutive rows a window may start at any sample.
    Recordings of the tasks in `excluded_tasks` are not used. Their events in other recordings are not used either, and
    neither are windows near such an event.
    """

    def __init__(self, dataset: Dataset, split: str, p: params.Pretrain):
        self.dataset, self.split, self.p = dataset, split, p
        self.batch_size = p.batch_size
        device.refuse_uneven(p.batch_size)
        self.window_samples, sfreq_hz = dataset.window_samples, dataset.cache.sfreq_hz
        self.reach_samples = samples(REACH_SD * p.event_sd_s, sfreq_hz)
        excluded = dataset.events.of(dataset.events.kinds, p.excluded_tasks)
        places = np.stack([dataset.events.recording, dataset.events.sample], axis=1)
        kinds = np.array([kind_of(name) for name in dataset.events.kinds])[dataset.events.kind]
        used = np.flatnonzero(~excluded & (kinds >= 0))
        used = used[np.argsort(_key(places[used]), kind="stable")]
        self.recording, self.at, self.kind = places[used, 0], _key(places[used]), kinds[used]  # of events

        self.rows = self._allowed(split, np.sort(_key(places[excluded])))
        if not len(self.rows):
            raise HbnError(
                f"the {split} split holds no window of a task other than {', '.join(p.excluded_tasks)} to pretrain on; "
                "add tasks to data.tasks or change pretrain.excluded_tasks"
            )
        follows = (np.diff(self.rows[:, 0]) == 0) & (np.diff(self.rows[:, 1]) < self.window_samples)
        self.room = np.append(np.where(follows, np.diff(self.rows[:, 1]), 1), 1)  # starts from each row on
        without = [WITHOUT_ROWS.get(task_of(recording), ()) for recording in dataset.cache.recordings]
        self.labelled = torch.tensor([[name not in names for name in KINDS] for names in without])  # (R, K)
        # The rows whose windows hold each event.
        starts = _key(self.rows)
        self.first, self.end = (np.searchsorted(starts, self.at - n, "right") for n in (self.window_samples, 0))
        self.tasks = self._by_task()
        weights = p.weights.model_dump()
        events = {kind: self._by_task_and_participant(kind) for kind, name in enumerate(KINDS) if weights[name]}
        self.around = {kind: tasks for kind, tasks in events.items() if tasks}
        if not self.around:
            raise HbnError(
                f"the {split} split holds no event of a kind with a weight in pretrain.weights, outside the tasks "
                f"{', '.join(p.excluded_tasks)}; add tasks to data.tasks, such as symbolSearch"
            )
        # Of the loss and of drawing. A kind without any event has none: there is nothing to learn.
        self.weights = torch.tensor([weights[name] * (kind in self.around) for kind, name in enumerate(KINDS)])
        self.chances = (self.weights / self.weights.sum()).double().numpy()

    def _allowed(self, split: str, excluded: np.ndarray) -> np.ndarray:
        """Windows (N, 2) of the split, sorted, not of excluded tasks nor near the `excluded` events (sorted keys)."""
        left_out = [task_of(recording) in self.p.excluded_tasks for recording in self.dataset.cache.recordings]
        windows = self.dataset.split_windows(split)
        windows = windows[~np.array(left_out, dtype=bool)[windows[:, 0]]]
        windows = windows[np.lexsort((windows[:, 1], windows[:, 0]))]
        apart, key = samples(APART_S, self.dataset.cache.sfreq_hz), _key(windows)
        # A window may start up to one window later than its row.
        first = np.searchsorted(excluded, key - apart)
        return windows[first == np.searchsorted(excluded, key + 2 * self.window_samples + apart)]

    def _by_task(self) -> list[list[list[np.ndarray]]]:
        """The rows of windows, nested by task, participant and recording."""
        recordings, first = np.unique(self.rows[:, 0], return_index=True)
        rows = np.split(np.arange(len(self.rows)), first[1:])
        return self._nested(recordings, rows)

    def _by_task_and_participant(self, kind: int) -> list[list[np.ndarray]]:
        """The events of a kind that a window can hold, nested by task and participant."""
        events = np.flatnonzero((self.kind == kind) & (self.first < self.end))
        recordings, first = np.unique(self.recording[events], return_index=True)
        tasks = self._nested(recordings, np.split(events, first[1:]) if len(events) else [])
        return [[np.concatenate(of_person) for of_person in of_task] for of_task in tasks]

    def _nested(self, recordings: np.ndarray, items: list) -> list[list[list]]:
        """Items of recordings as lists by task and participant."""
        found: dict[str, dict[str, list]] = {}
        for recording, item in zip(recordings.tolist(), items, strict=True):
            row = self.dataset.cache.recordings[recording]
            found.setdefault(row["task"], {}).setdefault(row["participant_id"], []).append(item)
        return [list(of_task.values()) for of_task in found.values()]

    def __call__(self, step: int) -> np.ndarray:
        """Windows (B, 2) of a step, for all processes together."""
        rng = np.random.default_rng([self.p.seed, step])
        return np.array([self._draw(rng) for _ in range(self.batch_size)])

    def _draw(self, rng: np.random.Generator) -> tuple[int, int]:
        if rng.random() < self.p.around_events:
            kind = int(np.searchsorted(np.cumsum(self.chances), rng.random() * self.chances.sum(), "right"))
            event = _any(rng, _any(rng, _any(rng, self.around[kind])))
            row = rng.integers(self.first[event], self.end[event])
        else:
            row = _any(rng, _any(rng, _any(rng, _any(rng, self.tasks))))
        return self.rows[row, 0], self.rows[row, 1] + rng.integers(self.room[row])

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of events that windows may hold, by kind and task."""
        recordings = self.dataset.cache.recordings
        return {
            KINDS[kind]: {
                recordings[self.recording[of_task[0][0]]]["task"]: sum(map(len, of_task)) for of_task in tasks
            }
            for kind, tasks in self.around.items()
        }

    def targets(self, windows: np.ndarray, n_samples: int) -> Tensor:
        """Target distributions (B, n_samples + 1, K) for windows (B, 2); zero where a kind has no event rows."""
        key = _key(windows)
        first = np.searchsorted(self.at, key - self.reach_samples)
        end = np.searchsorted(self.at, key + self.window_samples + self.reach_samples)
        window = np.repeat(np.arange(len(windows)), end - first)
        events = np.concatenate([np.arange(*span) for span in zip(first, end, strict=True)])
        at_s = (self.at[events] - key[window]) / self.dataset.cache.sfreq_hz
        tensors = torch.from_numpy(window), torch.from_numpy(self.kind[events]), torch.from_numpy(at_s).float()
        target = event_targets(*tensors, len(windows), n_samples, self.p.event_sd_s)
        return target * self.labelled[windows[:, 0]][:, None]


def task_of(recording: dict[str, str]) -> str:
    """The task of a recording in params.EVENT_TASKS, where all films are one task and both versions of learning are."""
    return next((task for task in params.EVENT_TASKS if recording["task"].startswith(task)), "movies")


def kind_of(name: str) -> int:
    """The index in KINDS of a dataset's kind, -1 for none; presses of either hand are one kind."""
    name = "press" if name.startswith("press") else name
    return KINDS.index(name) if name in KINDS else -1


def _key(places: np.ndarray) -> np.ndarray:
    """Rows (recording, sample, ...) as single numbers in the same order, with large gaps between recordings."""
    return (places[:, 0].astype(np.int64) << 32) + places[:, 1].astype(np.int64)


def _any(rng: np.random.Generator, items: list) -> Any:
    return items[rng.integers(len(items))]
