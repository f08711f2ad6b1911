"""The people of the simulated cohort: who they are, what they do, and the event tables of it.

Distributions are those measured in the event tables and participants.tsv of four real releases.
"""

import hashlib
import string
from dataclasses import dataclass

import numpy as np

from hbn import params
from hbn.data.bids import FACTORS, Recording
from hbn.data.events import CONTRAST_CHANGE, FAST, FOREPERIODS_S, RESPONSE_WINDOW_S

N_PARTICIPANTS = 136  # per release, as R1 has
FAST_BLOCKS = 92 / 1727  # share of blocks that run FAST times quicker
CODES = {
    **{"contrastTrial_start": 5, "left_target": 8, "right_target": 9, "left_buttonPress": 12, "right_buttonPress": 13},
    **{"resting_start": 90, "instructed_toOpenEyes": 20, "instructed_toCloseEyes": 30},
    **{"contrastChangeB1_start": 94, "contrastChangeB2_start": 95, "contrastChangeB3_start": 96},
    **{"surroundSuppB1_start": 93, "surroundSuppB2_start": 97, "fixpoint_ON": 4, "stim_ON": 8},
}
# Duration and codes of start and stop of the movies.
MOVIES_S = {"DespicableMe": 170.546, "ThePresent": 203.066, "DiaryOfAWimpyKid": 117.396, "FunwithFractals": 162.992}
VIDEO_CODES = {
    **{"DespicableMe": (83, 103), "ThePresent": (84, 104)},
    **{"DiaryOfAWimpyKid": (81, 101), "FunwithFractals": (82, 102)},
}
TASKS = {
    "RestingState": (None,),
    **dict.fromkeys(MOVIES_S, (None,)),
    "surroundSupp": (1, 2),
    CONTRAST_CHANGE: (1, 2, 3),
}
# Columns of participants.tsv, in HBN's order, with the share of participants for whom they say
# available; the last three have no simulated recordings.
AVAILABLE = {
    **{"RestingState": 0.99, "DespicableMe": 0.95, "FunwithFractals": 0.96, "ThePresent": 0.92},
    **{"DiaryOfAWimpyKid": 0.93, f"{CONTRAST_CHANGE}_1": 0.82, f"{CONTRAST_CHANGE}_2": 0.77},
    **{f"{CONTRAST_CHANGE}_3": 0.76, "surroundSupp_1": 0.81, "surroundSupp_2": 0.74},
    **{"seqLearning6target": 0.29, "seqLearning8target": 0.57, "symbolSearch": 0.56},
}
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
LOG_AGE_MEAN, LOG_AGE_SD = np.log(4.6), 0.5  # of the years above 5
# Each factor acts on one spectral feature: the field of Brain, and how much one standard deviation
# of it is (amplitudes on a logarithmic scale). `effect_<factor>` is their correlation.
FEATURES = {
    "p_factor": ("exponent", 0.25),
    "attention": ("log_theta", 0.45),
    "internalizing": ("asymmetry", 0.35),
    "externalizing": ("log_beta", 0.45),
}
EXPONENT = 1.3  # of the power spectrum of the average participant's background


@dataclass(frozen=True)
class Person:
    """What decides a participant's behaviour and EEG; factors_z is zero where factors are unknown."""

    participant_id: str
    age_years: float
    factors_z: tuple[float, ...]

    @property
    def age_z(self) -> float:
        """Age on the scale of the simulated cohort's (log-normal) distribution."""
        return float((np.log(max(self.age_years - 5, 0.2)) - LOG_AGE_MEAN) / LOG_AGE_SD)


@dataclass(frozen=True)
class Brain:
    """A participant's own spectral features."""

    exponent: float  # of the 1/f background's power spectrum
    log_theta: float  # amplitude of frontal theta
    asymmetry: float  # half the log ratio of frontal alpha amplitudes, right over left
    log_beta: float  # amplitude of central and frontal beta
    log_alpha: float  # amplitude of all alpha; rises with age
    alpha_hz: float  # peak frequency; rises with age

    @classmethod
    def of(cls, one: Person, p: params.Simulator) -> "Brain":
        rng = rng_of(p.seed, one.participant_id, "brain")
        features = {}
        for factor, z in zip(FACTORS, one.factors_z, strict=True):
            name, sd = FEATURES[factor]
            effect = getattr(p, f"effect_{factor}")
            features[name] = float(sd * (effect * z + np.sqrt(1 - effect**2) * rng.normal()))
        features["exponent"] += EXPONENT
        older = one.age_years - 10
        return cls(
            **features,
            log_alpha=float(0.03 * older + 0.25 * rng.normal()),
            alpha_hz=float(np.clip(9.0 + 0.15 * older + 0.4 * rng.normal(), 7.5, 11.5)),
        )


def rng_of(*names: object) -> np.random.Generator:
    """A generator that depends on the names alone."""
    return np.random.default_rng(list(hashlib.sha256(repr(names).encode()).digest()))


def participants_table(seed: int, release: str) -> list[dict[str, str]]:
    """Rows of participants.tsv of a release, ordered by id; row i does not depend on how many are used."""
    rng = rng_of(seed, release, "participants")
    latent = rng.normal(size=(N_PARTICIPANTS, 6)) @ np.linalg.cholesky(CORRELATION).T
    rows = []
    for z in latent:
        age_years = float(np.clip(5 + np.exp(LOG_AGE_MEAN + LOG_AGE_SD * z[0]), 5.0, 21.99))
        letters = "".join(rng.choice(list(string.ascii_uppercase), size=5))
        values = FACTOR_MEAN + FACTOR_SD * z[2:]
        row = {
            "participant_id": f"sub-NDAR{letters[:2]}{rng.integers(1000):03d}{letters[2:]}",
            "release_number": release,
            "sex": "M" if z[1] > -0.412 else "F",  # 66 % male
            "age": f"{age_years:.4f}",
            "ehq_total": f"{np.clip(rng.normal(65, 40), -100.05, 100.05):.2f}",
            "commercial_use": "Yes",
            "full_pheno": "Yes" if rng.random() < 0.96 else "No",
            **{name: "n/a" if age_years >= 18 else f"{v:.3f}" for name, v in zip(FACTORS, values, strict=True)},
        }
        done = {task: rng.random() for task in ("RestingState", *MOVIES_S, CONTRAST_CHANGE, "surroundSupp")}
        for column, share in AVAILABLE.items():
            # Runs of a task are mostly missing together.
            missed = done.get(column.rpartition("_")[0] or column, rng.random()) > share
            row[column] = "available" if not missed else "caution" if rng.random() < 0.2 else "unavailable"
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
    exists = {"available": 0.99, "caution": 0.2, "unavailable": 0.0}
    return [
        Recording(row["participant_id"], task, run)
        for task, runs in TASKS.items()
        for run in runs
        if rng.random() < exists[row[Recording("", task, run).column]]
    ]


def event_table(seed: int, one: Person, recording: Recording, lead_in_s: float, resting_cycles: int) -> list[dict]:
    """Events of a recording in file order: dicts of onset_s, value and the task's own columns.

    The last one, 'end', is not written: it says where the recording ends.
    """
    rng = rng_of(seed, one.participant_id, recording.column, "events")
    rows = [{"onset_s": 0.0, "value": "9999" if recording.task in MOVIES_S else "break cnt"}]
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
        stimuli = [(b, f, c) for b in (1, 1, 1, 0) for f in ("0", "0.3", "0.6", "1") for c in (1, 2, 3, 1)]
        order = rng_of("surroundSupp", recording.run).permutation(len(stimuli))  # the same for everybody
        onset_s, gap_s = lead_in_s, float(rng.choice([2.91, 5.31]))  # two setups
        for background, foreground, condition in (stimuli[i] for i in order):
            rows.append({"onset_s": onset_s - 0.51, "value": "fixpoint_ON"})
            shown = {"background": background, "foreground_contrast": foreground, "stimulus_cond": condition}
            rows.append({"onset_s": onset_s, "duration": 2.4, "value": "stim_ON", **shown})
            onset_s += gap_s + 0.51
        rows.append({"onset_s": onset_s + 1, "value": "end"})
    else:
        start, stop = VIDEO_CODES[recording.task]
        rows.append({"onset_s": 1.04, "value": "video_start", "event_code": start})
        rows.append({"onset_s": 1.04 + MOVIES_S[recording.task], "value": "video_stop", "event_code": stop})
        rows.append({"onset_s": 2.0 + MOVIES_S[recording.task], "value": "end"})
    return rows


def contrast_block(seed: int, one: Person, run: int, lead_in_s: float, rng: np.random.Generator) -> list[dict]:
    """One block of contrast change detection: 25 trial starts, 24 targets, presses, feedback."""
    own = rng_of(seed, one.participant_id, "behaviour")  # the same in every run of a participant
    own_rt_s = -0.06 * one.age_z + own.normal(0, 0.19)
    miss_rate = _sigmoid(-2.55 - 0.72 * one.age_z + own.normal(0, 0.85))
    wrong_rate = _sigmoid(-2.13 - 0.1 * one.age_z + own.normal(0, 0.7))
    speed = FAST if rng.random() < FAST_BLOCKS else 1.0
    window_s = RESPONSE_WINDOW_S / speed
    # The order of sides and foreperiods repeats across participants: 36 distinct sequences.
    sequence = rng_of("sequence", int(rng.integers(36)))
    foreperiods = sequence.permutation(np.repeat([0, 1, 2], 8))
    sides = np.where(sequence.permutation(np.repeat([0, 1], 12)) == 1, "right", "left")

    rows = [{"onset_s": lead_in_s - 2, "value": f"contrastChangeB{run}_start"}]
    start_s, residual_s = lead_in_s, 0.0
    for number, (foreperiod, side) in enumerate(zip(foreperiods, sides, strict=True)):
        target_s = start_s + float(FOREPERIODS_S[foreperiod]) / speed
        next_s = target_s + window_s
        rows.append({"onset_s": start_s, "value": "contrastTrial_start"})
        if rng.random() < 0.13:
            press_s = rng.uniform(start_s + 0.2, target_s - 0.1)
            rows.append({"onset_s": press_s, "value": f"{_either(rng)}_buttonPress", "feedback": "non_target"})
        rows.append({"onset_s": target_s, "value": f"{side}_target"})
        noise_s = rng.normal(0, 0.31)
        # Quicker after a long wait, slower towards the end, and much like the time before.
        expected_s = 1.675 - 0.09 * (foreperiod - 1) + 0.2 * (number / 23 - 0.5) + 0.22 * residual_s
        rt_s = max(expected_s + own_rt_s + noise_s, 0.5)
        rt_s /= 1.0 if speed == 1.0 else 1.25  # in fast blocks people are not as much faster
        if rng.random() < 0.022:  # before anything could be seen
            rt_s = rng.uniform(0.05, 0.48)
        else:
            residual_s = noise_s
        if rng.random() > miss_rate and rt_s < window_s - 0.02:  # who is too slow misses as well
            wrong = rng.random() < wrong_rate
            hand = contralateral(str(side)) if wrong else side
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


def contralateral(side: str) -> str:
    return {"left": "right", "right": "left"}[side]


def trials_of(rows: list[dict]) -> list[dict]:
    """Targets with their side, response (None without), hand, feedback and when it is shown."""
    found, current = [], None
    for row in rows:
        value = row["value"]
        if value.endswith("_target"):
            current = {"target_s": row["onset_s"], "side": value.split("_")[0], "rt_s": None, "feedback_s": 1e9}
            found.append(current)
        elif value == "contrastTrial_start" and current is not None:
            current["feedback_s"], current = row["onset_s"], None
        elif value.endswith("_buttonPress") and current is not None and current["rt_s"] is None:
            current["rt_s"] = row["onset_s"] - current["target_s"]
            current["hand"], current["feedback"] = value.split("_")[0], row.get("feedback")
    return found


def spans(rows: list[dict], begin: str, end: str, time_s: np.ndarray) -> np.ndarray:
    """1 between an event `begin` and the next `end` (or the last row), else 0; float32 (T,)."""
    inside = np.zeros(len(time_s), dtype=np.float32)
    for i, row in enumerate(rows):
        if row["value"] == begin:
            until_s = next((later["onset_s"] for later in rows[i + 1 :] if later["value"] == end), rows[-1]["onset_s"])
            inside[(time_s >= row["onset_s"]) & (time_s < until_s)] = 1
    return inside


def factor_ceiling(people: list[Person], p: params.Simulator) -> dict[str, float]:
    """Pearson r between each factor and the feature it acts on, in these very people.

    What a perfect measurement of that EEG feature would reach; 0 where fewer than three have factors.
    """
    known = [one for one in people if any(one.factors_z)]
    brains = [Brain.of(one, p) for one in known]
    result = {}
    for k, factor in enumerate(FACTORS):
        features = [getattr(brain, FEATURES[factor][0]) for brain in brains]
        values = [one.factors_z[k] for one in known]
        result[f"challenge2_{factor}_r"] = float(np.corrcoef(features, values)[0, 1]) if len(known) > 2 else 0.0
    return result


def _sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def _either(rng: np.random.Generator) -> str:
    return "left" if rng.random() < 0.5 else "right"
