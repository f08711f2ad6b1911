"""A small dataset in which the labels of both challenges are written into the signal."""

from pathlib import Path

import numpy as np
import torch

from hbn.data import bids
from hbn.data.event_kinds import KINDS, TASKS
from hbn.data.windows import RECORDING_COLUMNS, samples
from hbn.files import write_csv, write_json
from hbn.networks import architecture

SFREQ_HZ = 100
TRIAL_S = 3.0
PRESS = KINDS.index("press_left"), TASKS.index("contrastChangeDetection")
FACTOR_HZ = (2.5, 6.0, 10.0, 16.0)  # a rhythm for each factor, each on its own pattern over the scalp


def write(folder: Path, n_participants: int = 48, n_trials: int = 16, seed: int = 3) -> Path:
    """Write <folder>/data/dataset as the stage assemble does: half of the participants are train, a sixth validation.

    A response ends a pulse over some electrodes, and a trial without a response has none; a participant's
    factors set the strength of rhythms. The presses are the events.
    """
    rng = np.random.default_rng(seed)
    root, n_samples = folder / "data/dataset", round((1 + n_trials) * TRIAL_S * SFREQ_HZ)
    positions_m = bids.electrode_positions_m()
    patterns = 10 * architecture.smooth_components(torch.from_numpy(positions_m).float(), 6).numpy()  # (C, 6)
    time_s = np.arange(n_samples) / SFREQ_HZ
    recordings, trials, participants, windows, events = [], [], [], [], []
    for i in range(n_participants):
        name, factors = f"sub-P{i:02d}", rng.normal(size=len(bids.FACTORS))
        stem = f"{name}_task-contrastChangeDetection_run-1"
        data_uv = 5 * rng.normal(size=(n_samples, len(bids.CHANNELS)))  # (T, C)
        for k, hz in enumerate(FACTOR_HZ):
            rhythm_uv = 4 * np.exp(0.5 * factors[k]) * np.sin(2 * np.pi * (hz * time_s + rng.uniform()))
            data_uv += rhythm_uv[:, None] * patterns[:, k]
        previous = {"previous_outcome": "", "previous_rt_s": None}
        for trial in range(n_trials):
            target_s, rt_s = (trial + 0.5) * TRIAL_S, rng.uniform(0.8, 2.2) if rng.uniform() < 0.8 else None
            if rt_s:
                pulse_uv = 3 * np.exp(-0.5 * ((time_s - target_s - rt_s) / 0.1) ** 2)
                data_uv += pulse_uv[:, None] * patterns[:, 5]
                events.append((i, samples(target_s + rt_s, SFREQ_HZ), *PRESS))
            known = {"outcome": "correct" if rt_s else "miss", "rt_s": rt_s}
            trials.append(
                {
                    **{"recording": stem, "participant_id": name, "trial": trial, "side": "left", **known, **previous},
                    **{"start_sample": round((target_s + 0.5) * SFREQ_HZ), "onset_s": target_s},
                    **{"foreperiod_s": rng.choice([2.8, 4.4, 6.0]), "fast_block": 0, "early_press": 0},
                }
            )
            previous = {f"previous_{key}": value for key, value in known.items()}
        path = root / "recordings/R1" / name / f"{stem}.npy"
        path.parent.mkdir(parents=True)
        np.save(path, (64 * data_uv).astype(np.float16))
        recordings.append(
            dict.fromkeys(RECORDING_COLUMNS, "")
            | {"recording": stem, "release": "R1", "participant_id": name, "samples": n_samples}
            | {"task": "contrastChangeDetection", "run": 1, "sfreq_hz": SFREQ_HZ, "scale_uv": 1 / 64}
        )
        windows += [(i, start) for start in range(0, n_samples - 2 * SFREQ_HZ, SFREQ_HZ)]
        split = ("train", "test", "train", "validation", "train", "test")[i % 6]
        person = {"participant_id": name, "release": "R1", "split": split, "age_years": 9.0, "sex": "F"}
        participants.append(person | dict(zip(bids.FACTORS, factors.tolist(), strict=True)))
    for table, rows in (("recordings", recordings), ("trials", trials), ("participants", participants)):
        write_csv(root / f"{table}.csv", rows, list(rows[0]))
    np.save(root / "windows.npy", np.array(windows))
    np.save(root / "events.npy", np.array(events, dtype=np.int32))
    np.save(root / "breaks.npy", np.empty((0, 3), dtype=np.int32))
    channels = [
        {"channel": name, "x_m": x, "y_m": y, "z_m": z}
        for name, (x, y, z) in zip(bids.CHANNELS, positions_m.tolist(), strict=True)
    ]
    write_csv(root / "channels.csv", channels, list(channels[0]))
    write_json(root / "about.json", {"source": "simulated", "event_kinds": KINDS, "event_tasks": TASKS})
    return root
