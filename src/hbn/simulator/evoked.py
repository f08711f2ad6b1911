"""What events evoke in the simulated EEG: decisions, presses, onsets, feedback, flicker and films.

Every task has its own amplitudes, latencies and topographies, so a network that has learned one task does not simply
work on another. All presses share what physiology predicts: a negativity over the motor cortex opposite to the hand,
weaker mu and beta before the press and stronger mu and beta after it, and a centro-parietal positivity that ends with
the decision (O'Connell, Dockree & Kelly 2012).

Heights at the best electrode with ramp_uv 18 (the background has an rms of 10 uV), and changes of mu and beta in
percent at times relative to the press:

- contrast change detection: motor 9 uV, rising for 0.4 s, on the opposite side only; positivity 18 uV, from 0.3 s
  after the target to the press; mu and beta -40 % at -0.15 s, +30 % at 0.8 s
- symbolSearch: motor 6 uV, rising for 0.8 s, 35 % of it on the same side, 3 uV over the midline; positivity 8 uV,
  rising for 0.9 s to a peak 0.3 s before the click, 40 % of it occipital, too; -30 % at -0.4 s, +20 % at 1.1 s
- seqLearning (clicks without rows): motor 5 uV, 0.5 s, 20 % on the same side, 1.5 uV midline; positivity 3 uV,
  0.5 s, peak 0.1 s before, 20 % occipital; -25 % at -0.2 s, +15 % at 0.7 s

Presses of contrast change detection that answer no target have only the motor potential. 8 % of the participants
click with the left hand, the others with the right hand. ONSETS holds the responses to onsets. A film evokes the same
course in everybody (FILM_UV). Heights vary by HEIGHT_SD between events and by PERSON_SD between participants.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft

from hbn import params
from hbn.data.bids import Recording
from hbn.simulator.people import MOVIES_S, Person, rng_of
from hbn.simulator.tasks import VIDEO_CODES, contralateral, trials_of

MOTOR_SHARE = 0.5  # height of the readiness potential over that of the ramp, in contrast change detection
HEIGHT_SD = 0.3  # of the logarithm of a height, from event to event
PERSON_SD = 0.25  # of the logarithm of a height, between participants
LATENCY_SD_S = 0.012  # of the latencies of onsets, between participants
RAMP_START_S = 0.3  # after the target
MISS_RAMP = 0.25  # share of the ramp's height reached without a response
LEFT_HANDED = 0.08  # share of the participants who click with the left hand


@dataclass(frozen=True)
class Press:
    """The potentials and rhythms of a task's presses. Heights are shares of ramp_uv; times count from the press."""

    motor: float  # negativity over the motor cortex of the other hand
    rise_s: float
    fall_s: float
    same_side: float  # share of `motor` over the motor cortex of the same hand
    midline: float  # negativity over the supplementary motor area
    positivity: float  # centro-parietal; contrast change detection has `ramp` instead
    positivity_s: float
    decided_s: float  # time from the peak of the positivity to the press
    occipital: float  # share of the positivity over the visual cortex
    loss: tuple[float, float, float]  # change of mu and beta before the press: share, time, sd in s
    rebound: tuple[float, float, float]  # change after the press: share, time, sd in s


PRESSES = {
    "contrast": Press(MOTOR_SHARE, 0.4, 0.08, 0, 0, 0, 0.1, 0, 0, (-0.4, -0.15, 0.25), (0.3, 0.8, 0.25)),
    "search": Press(0.33, 0.8, 0.12, 0.35, 0.17, 0.45, 0.9, 0.3, 0.4, (-0.3, -0.4, 0.4), (0.2, 1.1, 0.35)),
    "learning": Press(0.28, 0.5, 0.1, 0.2, 0.08, 0.17, 0.5, 0.1, 0.2, (-0.25, -0.2, 0.3), (0.15, 0.7, 0.3)),
}
SAME_SIDE_RHYTHMS = 0.4  # share of the change of mu and beta on the side of the pressing hand


@dataclass(frozen=True)
class Wave:
    """A Gaussian deflection of a source after an event."""

    source: str
    uv: float
    at_s: float
    sd_s: float


def _both(uv: float, at_s: float, sd_s: float) -> tuple[Wave, Wave]:
    return Wave("left_occipital", uv, at_s, sd_s), Wave("right_occipital", uv, at_s, sd_s)


# A dot evokes more in the opposite hemisphere (see `_onsets`). A stimulus of surroundSupp ends after 2.4 s.
ONSETS = {
    "stim_ON": (Wave("occipital", 6.0, 0.12, 0.03), Wave("occipital", 2.5, 2.54, 0.04)),
    "fixpoint_ON": (Wave("occipital", 2.0, 0.14, 0.03),),
    "newPage": (*_both(7.0, 0.10, 0.022), *_both(-5.0, 0.17, 0.03), Wave("parietal", 5.0, 0.40, 0.10)),
    "learningBlock": (*_both(4.0, 0.13, 0.03), Wave("midline", -3.0, 0.30, 0.06)),
    "dot_ON": (*_both(4.0, 0.105, 0.02), *_both(-5.0, 0.165, 0.03), Wave("parietal", 4.5, 0.43, 0.11)),
    "dot_OFF": _both(2.0, 0.14, 0.03),
}
# Root mean square of what a film evokes in each source. The temporal sources share the course of what is heard.
FILM_UV = {"occipital": 2.0, "left_temporal": 1.5, "right_temporal": 1.5, "parietal": 1.0}
FILM_SFREQ_HZ = 50.0
FILM_BAND_HZ = (0.5, 8.0)


def responses_uv(
    rng: np.random.Generator,
    p: params.Simulator,
    person: Person,
    recording: Recording,
    rows: list[dict],
    time_s: np.ndarray,
) -> dict[str, np.ndarray]:
    """What the events of a recording evoke in named sources (eeg.SOURCES), (T,) float32 in microvolts.

    `rng` draws the heights of the trials of contrast change detection; everything else has its own generator.
    Events at 0 s in a real table are spurious and evoke nothing.
    """
    evoked = defaultdict(lambda: np.zeros(len(time_s), dtype=np.float32))
    rows = [row for row in rows if row["onset_s"] > 0]
    _trials(rng, evoked, rows, time_s, p.ramp_uv)
    own = rng_of(p.seed, person.participant_id, recording.column, "evoked")
    presses = presses_of(rows, mouse_hand(p.seed, person))
    _presses(own, _scale(p.seed, person, "press"), evoked, presses, time_s, p.ramp_uv)
    _onsets(own, p.seed, person, evoked, rows, time_s)
    _films(p.seed, person, evoked, rows, time_s)
    return evoked


def ramp(after_s: np.ndarray, rt_s: float | None) -> np.ndarray:
    """Centro-parietal positivity, 1 at its peak: rises from 0.3 s after the target to the response.

    Its peak marks the decision (O'Connell, Dockree & Kelly 2012). Without a response it rises slowly and stays
    low.
    """
    if rt_s is None:
        creeping = np.clip((after_s - RAMP_START_S) / 2.0, 0, 1)
        return (MISS_RAMP * creeping * np.exp(-np.clip(after_s - 2.4, 0, None) / 0.2)).astype(np.float32)
    start_s = min(RAMP_START_S, 0.5 * rt_s)
    height = min(1.0, rt_s / 1.0)  # before a premature press little evidence has accumulated
    return height * _rise(after_s - rt_s, rt_s - start_s, 0.2)


def motor(after_s: np.ndarray, press_s: float, press: Press = PRESSES["contrast"]) -> np.ndarray:
    """Readiness potential, -1 at the press."""
    return -_rise(after_s - press_s, press.rise_s, press.fall_s)


def presses_of(rows: list[dict], clicking: str) -> list[tuple[float, str, Press]]:
    """All presses as (time in s, hand, Press), including the clicks of sequence learning, which have no rows."""
    presses = []
    for i, row in enumerate(rows):
        value, onset_s = row["value"], row["onset_s"]
        if value.endswith("_buttonPress"):
            presses.append((onset_s, value.split("_")[0], PRESSES["contrast"]))
        elif value == "trialResponse":
            presses.append((onset_s, clicking, PRESSES["search"]))
        elif value.endswith("_OFF") and rows[i + 1]["value"].startswith(("learningBlock", "seqLearning_stop")):
            clicks_s = answer_clicks_s(onset_s, rows[i + 1]["onset_s"])
            presses += [(at_s, clicking, PRESSES["learning"]) for at_s in clicks_s]
    return presses


def answer_clicks_s(begin_s: float, end_s: float) -> np.ndarray:
    """When the dots of an answer are clicked: about every 3 s, from 3 s after the last dot to 1.5 s before the end."""
    rng = rng_of("answer", round(begin_s, 2))
    n = int(np.clip((end_s - begin_s - 4.5) / 3, 1, 12))
    return np.sort(rng.uniform(begin_s + 3, max(end_s - 1.5, begin_s + 3.1), n))


def mouse_hand(seed: int, person: Person) -> str:
    return "left" if rng_of(seed, person.participant_id, "hand").random() < LEFT_HANDED else "right"


def hand_modulation(rows: list[dict], time_s: np.ndarray, clicking: str = "right") -> tuple[np.ndarray, np.ndarray]:
    """Gains (T,), (T,) of the left and right motor rhythms: lower before a press of the other hand, higher after it."""
    gain = {"left": np.ones_like(time_s), "right": np.ones_like(time_s)}
    for at_s, hand, press in presses_of(rows, clicking):
        for share, after_s, sd_s in (press.loss, press.rebound):
            near = _near(time_s, at_s + after_s - 5 * sd_s, at_s + after_s + 5 * sd_s)
            change = share * _bump(time_s[near] - np.float32(at_s), after_s, sd_s)
            gain[contralateral(hand)][near] += change
            gain[hand][near] += SAME_SIDE_RHYTHMS * change
    return np.maximum(gain["left"], 0.2), np.maximum(gain["right"], 0.2)


@lru_cache
def film_course(film: str) -> np.ndarray:
    """What a film evokes, (sources of FILM_UV, T) at FILM_SFREQ_HZ, rms 1: the same for everybody who watches it."""
    n = round((MOVIES_S[film] + 2) * FILM_SFREQ_HZ)
    hz = scipy.fft.rfftfreq(n, 1 / FILM_SFREQ_HZ)
    shape = np.where((hz >= FILM_BAND_HZ[0]) & (hz <= FILM_BAND_HZ[1]), np.maximum(hz, 0.1) ** -0.5, 0)
    white = rng_of("film", film).normal(size=(3, 2, len(hz)))
    seen, heard, understood = scipy.fft.irfft(shape * (white[:, 0] + 1j * white[:, 1]), n)
    course = np.stack([seen, heard, heard, understood])
    return course / course.std(axis=1, keepdims=True)


def _trials(rng: np.random.Generator, evoked: dict, rows: list[dict], time_s: np.ndarray, ramp_uv: float) -> None:
    """Decisions, feedback and flicker of contrast change detection."""
    contrast = {"left": np.zeros_like(time_s), "right": np.zeros_like(time_s)}
    trials = trials_of(rows)
    for trial in trials:
        near = _near(time_s, trial["target_s"] - 3, trial["target_s"] + 5)
        after_s = time_s[near] - np.float32(trial["target_s"])
        height_uv = ramp_uv * np.exp(rng.normal(0, HEIGHT_SD))
        evoked["parietal"][near] += height_uv * ramp(after_s, trial["rt_s"])
        if trial["rt_s"] is not None:
            negativity_uv = -9.0 if trial["feedback"] == "sad_face" else -4.0
            _add(evoked["midline"], time_s, trial["feedback_s"], negativity_uv, 0.25, 0.05)
            _add(evoked["parietal"], time_s, trial["feedback_s"], 8.0, 0.40, 0.09)
        contrast[trial["side"]][near] += np.clip(np.minimum(after_s / 1.6, (2.4 - after_s) / 0.8), 0, 1)
        for shown in contrast.values():
            shown[near] += 0.5 * (np.abs(after_s) < 3)
    if trials:  # gratings flicker at 20 Hz (left) and 25 Hz (right); the opposite hemisphere responds
        evoked["right_occipital"] += 1.5 * contrast["left"] * np.sin(2 * np.pi * 20 * time_s)
        evoked["left_occipital"] += 1.5 * contrast["right"] * np.sin(2 * np.pi * 25 * time_s)


def _presses(
    rng: np.random.Generator, scale: float, evoked: dict, presses: list[tuple], time_s: np.ndarray, ramp_uv: float
) -> None:
    """Motor potentials of all presses, and the positivity before clicks."""
    for at_s, hand, press in presses:
        near = _near(time_s, at_s - 4, at_s + 2)
        after_s = time_s[near] - np.float32(at_s)
        height_uv, positivity_uv, earlier, longer = ramp_uv, 0.0, 1.0, 1.0
        if press is not PRESSES["contrast"]:  # its positivity and heights are in `_trials`
            vary = np.exp(rng.normal(0, HEIGHT_SD, size=4))
            height_uv, positivity_uv = ramp_uv * scale * vary[:2]
            earlier, longer = vary[2:]
        readiness = np.float32(height_uv) * motor(after_s, 0.0, press)
        evoked[f"{contralateral(hand)}_motor"][near] += press.motor * readiness
        evoked[f"{hand}_motor"][near] += press.same_side * press.motor * readiness
        evoked["midline"][near] += press.midline * readiness
        course = press.positivity * _rise(after_s + earlier * press.decided_s, longer * press.positivity_s, 0.25)
        evoked["parietal"][near] += np.float32(positivity_uv) * course
        evoked["occipital"][near] += press.occipital * np.float32(positivity_uv) * course


def _onsets(
    rng: np.random.Generator, seed: int, person: Person, evoked: dict, rows: list[dict], time_s: np.ndarray
) -> None:
    """Visual potentials after the onsets in ONSETS."""
    later_s = float(rng_of(seed, person.participant_id, "latency").normal(0, LATENCY_SD_S))
    scale = {kind: _scale(seed, person, kind) for kind in ONSETS}
    block = 0
    for row in rows:
        value, onset_s = row["value"], row["onset_s"]
        kind, dot = value, 0
        if value.startswith("dot_no"):
            kind, dot = f"dot_{value.partition('_')[2].partition('_')[2]}", int(value[6])
        elif value.startswith("learningBlock_"):
            kind, block = "learningBlock", int(value[-1]) - 1
        if kind not in ONSETS:
            continue
        height = scale[kind] * np.exp(rng.normal(0, HEIGHT_SD))
        to_the_right = np.cos(np.pi / 4 * (dot - 1)) if dot else 0.0  # dots are 45 degrees apart on a circle
        side = {"left_occipital": 1 + 0.5 * to_the_right, "right_occipital": 1 - 0.5 * to_the_right}
        if dot:  # a known sequence evokes less
            side["parietal"] = 1 - 0.12 * block
        for wave in ONSETS[kind]:
            uv = height * side.get(wave.source, 1.0) * wave.uv
            _add(evoked[wave.source], time_s, onset_s, uv, wave.at_s + later_s, wave.sd_s)


def _films(seed: int, person: Person, evoked: dict, rows: list[dict], time_s: np.ndarray) -> None:
    """What films evoke, from their start to their stop."""
    films = {str(start): film for film, (start, _) in VIDEO_CODES.items()}
    for i, row in enumerate(rows):
        film = films.get(str(row.get("event_code")))
        if row["value"] != "video_start" or film is None:
            continue
        stops_s = [later["onset_s"] for later in rows[i + 1 :] if later["value"] in ("video_stop", "video_start")]
        near = _near(time_s, row["onset_s"], min([*stops_s, row["onset_s"] + MOVIES_S[film]]))
        grid_s = np.arange(film_course(film).shape[1]) / FILM_SFREQ_HZ
        for (source, uv), course in zip(FILM_UV.items(), film_course(film), strict=True):
            heard_uv = uv * _scale(seed, person, "film") * np.interp(time_s[near] - row["onset_s"], grid_s, course)
            evoked[source][near] += heard_uv.astype(np.float32)


def _scale(seed: int, person: Person, kind: str) -> float:
    """Height of a kind of potential in a participant, relative to the average."""
    return float(np.exp(rng_of(seed, person.participant_id, "scale", kind).normal(0, PERSON_SD)))


def _rise(after_s: np.ndarray, rise_s: float, fall_s: float) -> np.ndarray:
    """A linear rise to 1 at time 0, then an exponential fall."""
    rising = np.clip((after_s + rise_s) / rise_s, 0, 1)
    return (rising * np.exp(-np.clip(after_s, 0, None) / fall_s)).astype(np.float32)


def _add(course: np.ndarray, time_s: np.ndarray, event_s: float, uv: float, at_s: float, sd_s: float) -> None:
    """Add a Gaussian deflection, `at_s` after an event, to (T,) in place."""
    near = _near(time_s, event_s + at_s - 5 * sd_s, event_s + at_s + 5 * sd_s)
    course[near] += np.float32(uv) * _bump(time_s[near] - np.float32(event_s), at_s, sd_s)


def _near(time_s: np.ndarray, begin_s: float, end_s: float) -> slice:
    """The samples between two times."""
    return slice(*np.searchsorted(time_s, [begin_s, end_s]).tolist())


def _bump(time_s: np.ndarray, at_s: float, sd_s: float) -> np.ndarray:
    return np.exp(-0.5 * ((time_s - np.float32(at_s)) / np.float32(sd_s)) ** 2)
