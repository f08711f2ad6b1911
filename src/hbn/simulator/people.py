"""The people of the simulated cohort: who they are, which recordings they have and the features of their brains.

The distributions were measured in participants.tsv of R1 to R3 and R5 (800 participants). The module `tasks` simulates
what people do, and the modules `evoked` and `eeg` simulate their EEG.
"""

import hashlib
import string
from dataclasses import dataclass

import numpy as np

from hbn import params
from hbn.data.bids import FACTORS, Recording
from hbn.data.events import CONTRAST_CHANGE

N_PARTICIPANTS = 136  # per release, as R1 has
# Durations of the movies.
MOVIES_S = {"DespicableMe": 170.546, "ThePresent": 203.066, "DiaryOfAWimpyKid": 117.396, "FunwithFractals": 162.992}
TASKS = {
    "RestingState": (None,),
    **dict.fromkeys(MOVIES_S, (None,)),
    "surroundSupp": (1, 2),
    CONTRAST_CHANGE: (1, 2, 3),
    **dict.fromkeys(("seqLearning6target", "seqLearning8target", "symbolSearch"), (None,)),
}
# Columns of participants.tsv, in HBN's order, with the share of participants whose cell says 'available'.
# symbolSearch: in R1, 56 % of the participants have its files (52 to 63 % in seven of eight releases), and so do 61 %
# of those with contrast change detection. It is the only other task whose presses have event rows.
AVAILABLE = {
    **{"RestingState": 0.99, "DespicableMe": 0.95, "FunwithFractals": 0.96, "ThePresent": 0.92},
    **{"DiaryOfAWimpyKid": 0.93, f"{CONTRAST_CHANGE}_1": 0.82, f"{CONTRAST_CHANGE}_2": 0.77},
    **{f"{CONTRAST_CHANGE}_3": 0.76, "surroundSupp_1": 0.81, "surroundSupp_2": 0.74},
    **{"seqLearning6target": 0.29, "seqLearning8target": 0.57, "symbolSearch": 0.56},
}
# Younger children do seqLearning with 6 targets. In R1 and R4 to R11, half of the children of this age do so.
LEARNING_AGE_YEARS = 8.75
LEARNING_AVAILABLE = 0.86  # share of participants with either version
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
LOG_AGE_MEAN, LOG_AGE_SD = np.log(4.6), 0.5  # of the years of age above 5
# Each factor acts on one spectral feature: the name of the feature in Brain, and its standard deviation over people
# (amplitudes on a logarithmic scale). `effect_<factor>` is the correlation of factor and feature.
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
    def of(cls, person: Person, p: params.Simulator) -> "Brain":
        rng = rng_of(p.seed, person.participant_id, "brain")
        features = {}
        for factor, z in zip(FACTORS, person.factors_z, strict=True):
            name, sd = FEATURES[factor]
            effect = getattr(p, f"effect_{factor}")
            features[name] = float(sd * (effect * z + np.sqrt(1 - effect**2) * rng.normal()))
        features["exponent"] += EXPONENT
        older = person.age_years - 10
        return cls(
            **features,
            log_alpha=float(0.03 * older + 0.25 * rng.normal()),
            alpha_hz=float(np.clip(9.0 + 0.15 * older + 0.4 * rng.normal(), 7.5, 11.5)),
        )


def rng_of(*names: object) -> np.random.Generator:
    """A generator that depends on the names alone."""
    return np.random.default_rng(list(hashlib.sha256(repr(names).encode()).digest()))


def participants_table(seed: int, release: str) -> list[dict[str, str]]:
    """Rows of participants.tsv of a release, sorted by id. They do not depend on how many participants are used."""
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
            # If a run of a task is missing, its other runs are mostly missing, too.
            missed = done.get(column.rpartition("_")[0] or column, rng.random()) > share
            row[column] = "available" if not missed else "caution" if rng.random() < 0.2 else "unavailable"
        has_learned = rng_of(seed, row["participant_id"], "learning available").random() < LEARNING_AVAILABLE
        for column in ("seqLearning6target", "seqLearning8target"):
            row[column] = "available" if has_learned and column == learning_task(person(row)) else "unavailable"
        rows.append(row)
    return sorted(rows, key=lambda row: row["participant_id"])


def person(row: dict[str, str]) -> Person:
    """The person of a row of participants.tsv, of the simulated cohort or of a real release."""
    values = [row[name] for name in FACTORS]
    known = "n/a" not in values
    z = (np.array(values, dtype=float) - FACTOR_MEAN) / FACTOR_SD if known else np.zeros(len(FACTORS))
    age_years = float(row["age"]) if row["age"] != "n/a" else 10.0
    return Person(row["participant_id"], age_years, tuple(z.tolist()))


def learning_task(person: Person) -> str:
    """The version of sequence learning that a person of this age does."""
    return "seqLearning6target" if person.age_years < LEARNING_AGE_YEARS else "seqLearning8target"


def recordings_of(row: dict[str, str]) -> list[Recording]:
    """The recordings of a participant: most of the available ones, and a few others.

    As in HBN, the columns do not tell whether files exist.
    """
    rng = rng_of(row["participant_id"], "files")
    exists = {"available": 0.99, "caution": 0.2, "unavailable": 0.0}
    return [
        Recording(row["participant_id"], task, run)
        for task, runs in TASKS.items()
        for run in runs
        if rng.random() < exists[row[Recording("", task, run).column]]
    ]


def factor_ceiling(people: list[Person], p: params.Simulator) -> dict[str, float]:
    """Pearson r between each factor and the feature it acts on, among these people.

    A perfect measurement of that EEG feature would reach it. It is 0 where fewer than three people have factors.
    """
    known = [person for person in people if any(person.factors_z)]
    brains = [Brain.of(person, p) for person in known]
    result = {}
    for k, factor in enumerate(FACTORS):
        features = [getattr(brain, FEATURES[factor][0]) for brain in brains]
        values = [person.factors_z[k] for person in known]
        result[f"challenge2_{factor}_r"] = float(np.corrcoef(features, values)[0, 1]) if len(known) > 2 else 0.0
    return result
