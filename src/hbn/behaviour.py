"""The people of the simulated cohort: participants, what they do, and the event tables of it.

Distributions are those measured in the event tables and participants.tsv of four real releases.
"""

import hashlib
import string
from dataclasses import dataclass

import numpy as np

from hbn.bids import FACTORS, Recording
from hbn.events import CONTRAST_CHANGE

N_PARTICIPANTS = 136  # per release, as R1 has
FOREPERIODS_S = (2.8, 4.4, 6.0)
FAST = 1.463  # how much faster a fast block runs
RESPONSE_S = 2.4  # from target to the next trial start
CODES = {
    **{"contrastTrial_start": 5, "left_target": 8, "right_target": 9, "left_buttonPress": 12, "right_buttonPress": 13},
    **{"resting_start": 90, "instructed_toOpenEyes": 20, "instructed_toCloseEyes": 30},
    **{"contrastChangeB1_start": 94, "contrastChangeB2_start": 95, "contrastChangeB3_start": 96},
    **{"surroundSuppB1_start": 93, "surroundSuppB2_start": 97, "fixpoint_ON": 4, "stim_ON": 8},
    **{"video_start": 84, "video_stop": 104},
}
MOVIES_S = {"DespicableMe": 170.5, "ThePresent": 203.1, "DiaryOfAWimpyKid": 117.4, "FunwithFractals": 162.6}
TASKS = {
    "RestingState": (None,),
    **dict.fromkeys(MOVIES_S, (None,)),
    "surroundSupp": (1, 2),
    CONTRAST_CHANGE: (1, 2, 3),
}
# Columns of participants.tsv, in HBN's order; the last three have no simulated recordings.
COLUMNS = (
    *("RestingState", "DespicableMe", "FunwithFractals", "ThePresent", "DiaryOfAWimpyKid"),
    *(f"{CONTRAST_CHANGE}_{run}" for run in (1, 2, 3)),
    *("surroundSupp_1", "surroundSupp_2", "seqLearning6target", "seqLearning8target", "symbolSearch"),
)
# Correlations of age, male sex and the factors (p, attention, internalizing, externalizing).
CORRELATION = np.array(
    [
        [1.00, 0.00, 0.00, 0.00, 0.19, -0.17],
        [0.00, 1.00, 0.00, 0.20, -0.15, 0.16],
        [0.00, 0.00, 1.00, 0.11, 0.23, 0.16],
        [0.00, 0.20, 0.11, 1.00, 0.00, 0.00],
        [0.19, -0.15, 0.23, 0.00, 1.00, -0.24],
        [-0.17, 0.16, 0.16, 0.00, -0.24, 1.00],
    ]
)
FACTOR_MEAN, FACTOR_SD = np.array([0.04, 0.01, 0.07, 0.05]), np.array([0.90, 0.84, 0.82, 0.76])


@dataclass(frozen=True)
class Person:
    """What decides a participant's behaviour and EEG; factors_z is zero where factors are unknown."""

    participant_id: str
    age_years: float
    factors_z: tuple[float, ...]


def rng_of(*names: object) -> np.random.Generator:
    """A generator that depends on the names alone."""
    return np.random.default_rng(list(hashlib.sha256(repr(names).encode()).digest()))


def participants_table(seed: int, release: str) -> list[dict[str, str]]:
    """Rows of participants.tsv of a release, ordered by id; row i does not depend on how many are used."""
    rng = rng_of(seed, release, "participants")
    latent = rng.normal(size=(N_PARTICIPANTS, 6)) @ np.linalg.cholesky(CORRELATION).T
    rows = []
    for z in latent:
        age_years = float(np.clip(5 + np.exp(np.log(4.6) + 0.5 * z[0]), 5.0, 21.99))
        letters = "".join(rng.choice(list(string.ascii_uppercase), size=5))
        values = FACTOR_MEAN + FACTOR_SD * z[2:]
        row = {
            "participant_id": f"sub-NDAR{letters[:2]}{rng.integers(1000):03d}{letters[2:]}",
            "release_number": release,
            "sex": "M" if z[1] > -0.412 else "F",  # 66 % male
            "age": f"{age_years:.4f}",
            "ehq_total": f"{np.clip(rng.normal(65, 40), -100.05, 100.05):.2f}",
            "commercial_use": "Yes" if rng.random() < 0.9 else "No",
            "full_pheno": "Yes" if rng.random() < 0.9 else "No",
            **{name: "n/a" if age_years >= 18 else f"{v:.3f}" for name, v in zip(FACTORS, values, strict=True)},
        }
        for column in COLUMNS:
            row[column] = str(rng.choice(["available", "caution", "unavailable"], p=[0.85, 0.1, 0.05]))
        rows.append(row)
    return sorted(rows, key=lambda row: row["participant_id"])


def person(row: dict[str, str]) -> Person:
    """The person behind a row of participants.tsv, a simulated or a real one."""
    values = [row[name] for name in FACTORS]
    known = "n/a" not in values
    z = (np.array(values, dtype=float) - FACTOR_MEAN) / FACTOR_SD if known else np.zeros(len(FACTORS))
    age_years = float(row["age"]) if row["age"] != "n/a" else 10.0
    return Person(row["participant_id"], age_years, tuple(z.tolist()))


def recordings_of(row: dict[str, str]) -> list[Recording]:
    """Recordings that exist for a participant: most of the available ones, and some others.

    As in HBN, the columns do not say whether files exist.
    """
    rng = rng_of(row["participant_id"], "files")
    exists = {"available": 0.98, "caution": 0.5, "unavailable": 0.0}
    return [
        Recording(row["participant_id"], task, run)
        for task, runs in TASKS.items()
        for run in runs
        if rng.random() < exists[row[Recording("", task, run).column]]
    ]


def event_table(seed: int, one: Person, recording: Recording, lead_in_s: float, resting_cycles: int) -> list[dict]:
    """Events of a recording in file order: dicts with onset_s, value, feedback; 'end' closes it."""
    rng = rng_of(seed, one.participant_id, recording.column, "events")
    rows = [{"onset_s": 0.0, "value": "break cnt"}]
    if recording.task == CONTRAST_CHANGE:
        rows += contrast_block(seed, one, recording.run, lead_in_s, rng)
    elif recording.task == "RestingState":
        rows.append({"onset_s": 1.3, "value": "resting_start"})
        onset_s = lead_in_s
        for _ in range(resting_cycles):
            rows.append({"onset_s": onset_s, "value": "instructed_toOpenEyes"})
            rows.append({"onset_s": onset_s + 20, "value": "instructed_toCloseEyes"})
            onset_s += 60
        rows.append({"onset_s": onset_s, "value": "instructed_toOpenEyes"})
        rows.append({"onset_s": onset_s + 4.5, "value": "end"})
    elif recording.task == "surroundSupp":
        rows.append({"onset_s": lead_in_s - 2, "value": f"surroundSuppB{recording.run}_start"})
        onset_s, gap_s = lead_in_s, float(rng.choice([2.91, 5.31]))
        for _ in range(64):
            rows.append({"onset_s": onset_s - 0.52, "value": "fixpoint_ON"})
            rows.append({"onset_s": onset_s, "value": "stim_ON"})
            onset_s += gap_s + 0.52
        rows.append({"onset_s": onset_s + 1, "value": "end"})
    else:
        rows.append({"onset_s": 1.04, "value": "video_start"})
        rows.append({"onset_s": 1.04 + MOVIES_S[recording.task], "value": "video_stop"})
        rows.append({"onset_s": 2.0 + MOVIES_S[recording.task], "value": "end"})
    return rows


def contrast_block(seed: int, one: Person, run: int, lead_in_s: float, rng: np.random.Generator) -> list[dict]:
    """One block of contrast change detection: 25 trial starts, 24 targets, presses, feedback."""
    own = rng_of(seed, one.participant_id, "behaviour")  # the same in every run of a participant
    age_z = (np.log(max(one.age_years - 5, 0.2)) - np.log(4.6)) / 0.5
    own_rt_s = -0.10 * age_z + own.normal(0, 0.14)
    miss_rate = _sigmoid(-2.15 - 0.75 * age_z + own.normal(0, 0.6))
    wrong_rate = _sigmoid(-2.25 - 0.4 * age_z + own.normal(0, 0.5))
    speed = FAST if rng.random() < 0.053 else 1.0
    # The order of sides and foreperiods repeats across participants: 36 distinct sequences.
    sequence = rng_of("sequence", int(rng.integers(36)))
    foreperiods = sequence.permutation(np.repeat([0, 1, 2], 8))
    sides = np.where(sequence.permutation(np.repeat([0, 1], 12)) == 1, "right", "left")

    rows = [{"onset_s": lead_in_s - 2, "value": f"contrastChangeB{run}_start"}]
    start_s, residual_s = lead_in_s, 0.0
    for foreperiod, side in zip(foreperiods, sides, strict=True):
        target_s = start_s + FOREPERIODS_S[foreperiod] / speed
        next_s = target_s + RESPONSE_S / speed
        rows.append({"onset_s": start_s, "value": "contrastTrial_start"})
        if rng.random() < 0.13:
            press_s = rng.uniform(start_s + 0.2, target_s - 0.1)
            rows.append({"onset_s": press_s, "value": f"{_either(rng)}_buttonPress", "feedback": "non_target"})
        rows.append({"onset_s": target_s, "value": f"{side}_target"})
        if rng.random() >= miss_rate:
            expected_s = 1.62 + own_rt_s - 0.09 * (foreperiod - 1) + 0.3 * residual_s
            noise_s = rng.normal(0, 0.30)
            rt_s = float(np.clip(expected_s + noise_s, 0.52, 2.36))
            if rng.random() < 0.022:  # before anything could be seen
                rt_s = float(rng.uniform(0.05, 0.48))
            else:
                residual_s = noise_s
            rt_s /= speed if speed == 1.0 else 1.33  # in fast blocks people are not as much faster
            rt_s = min(rt_s, RESPONSE_S / speed - 0.03)
            wrong = rng.random() < wrong_rate
            hand = side if not wrong else {"left": "right", "right": "left"}[str(side)]
            feedback = "sad_face" if wrong else "smiley_face"
            rows.append({"onset_s": target_s + rt_s, "value": f"{hand}_buttonPress", "feedback": feedback})
            second_s = target_s + rt_s + 0.25
            if rng.random() < 0.08 and second_s < next_s - 0.05:
                rows.append({"onset_s": second_s, "value": f"{_either(rng)}_buttonPress", "feedback": "non_target"})
        start_s = next_s
    rows.append({"onset_s": start_s, "value": "contrastTrial_start"})
    rows.append({"onset_s": start_s + 1.6, "value": "end"})
    return rows


def has_copy_of_next(seed: int, recording: Recording) -> bool:
    """Whether the file of a run also holds the next run's block (11 % of the trials on file do)."""
    if recording.task != CONTRAST_CHANGE or recording.run == 3:
        return False
    return rng_of(seed, recording.participant_id, recording.column, "copy").random() < 0.15


def _sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def _either(rng: np.random.Generator) -> str:
    return "left" if rng.random() < 0.5 else "right"
