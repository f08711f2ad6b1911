"""Tasks other than contrast change detection: event tables with the real statistics, signals that follow them."""

import csv
from collections import Counter

import numpy as np
import pytest
from clone import REPOSITORY

from hbn import params
from hbn.data.bids import Recording
from hbn.files import read_tsv
from hbn.simulator import evoked, people, tasks
from hbn.sources.simulated import SimulatedSource

P = params.load(REPOSITORY / "params.yaml").simulator.model_copy(update={"sfreq_hz": 100, "search_s": 120.0})
ADULT = people.Person("sub-NDARAA001AAA", 12.0, (0.0, 0.0, 0.0, 0.0))


def everyone() -> list[dict]:
    return [row for release in ("R1", "R2", "R3", "R4") for row in people.participants_table(P.seed, release)]


def tables(task: str) -> list[tuple[people.Person, list[dict]]]:
    """People who have a task, and their tables without the last row."""
    found = []
    for row in everyone():
        for recording in people.recordings_of(row):
            if recording.task == task:
                one = people.person(row)
                found.append((one, tasks.event_table(P, one, recording)[:-1]))
    return found


def evoked_uv(rows: list[dict], one: people.Person = ADULT, task: str = "symbolSearch", sfreq_hz: int = 100) -> dict:
    """What the rows evoke, whose last one is the end."""
    time_s = np.arange(round(rows[-1]["onset_s"] * sfreq_hz), dtype=np.float32) / sfreq_hz
    rng = people.rng_of("test")
    return evoked.responses_uv(rng, P, one, Recording(one.participant_id, task, None), rows, time_s)


def rows_of(*events: tuple[float, str]) -> list[dict]:
    return [{"onset_s": onset_s, "value": value} for onset_s, value in events]


def test_symbol_search_has_the_statistics_of_the_real_tables():
    found = tables("symbolSearch")
    assert len(found) / len(everyone()) == pytest.approx(0.56, abs=0.05)
    clicks = [[row for row in rows if row["value"] == "trialResponse"] for _, rows in found]
    pages = [[row["onset_s"] for row in rows if row["value"] == "newPage"] for _, rows in found]
    n = np.array([len(own) for own in clicks])
    assert np.quantile(n, [0.05, 0.5, 0.95]) == pytest.approx([6, 16, 32], abs=6)
    assert np.corrcoef([one.age_years for one, _ in found], n)[0, 1] == pytest.approx(0.69, abs=0.1)
    apart_s = np.concatenate([np.diff([row["onset_s"] for row in own]) for own in clicks])
    assert np.quantile(apart_s, [0.05, 0.25, 0.5, 0.75, 0.95]) == pytest.approx([2.2, 3.8, 5.6, 8.3, 16.5], rel=0.2)
    lasts_s = np.array([own[-1] - own[0] for own in pages])
    assert lasts_s.min() > 120
    assert np.median(lasts_s) == pytest.approx(123.65, abs=1)
    right = [np.mean([row["user_answer"] == row["correct_answer"] for row in own]) for own in clicks]
    assert np.mean(right) == pytest.approx(0.893, abs=0.03)
    assert {Counter(len(own) for own in pages).most_common(2)[k][0] for k in (0, 1)} == {2, 3}
    first = Counter(rows[0]["value"] for _, rows in found)
    assert first["break cnt"] / len(found) == pytest.approx(0.954, abs=0.04)
    assert set(first) <= {"break cnt", "dot_no2_OFF", "dot_no7_OFF", "seqLearning_stop"}


@pytest.mark.parametrize("n_targets", [6, 8])
def test_sequence_learning_has_the_statistics_of_the_real_tables(n_targets):
    found = tables(f"seqLearning{n_targets}target")
    assert len(found) / len(everyone()) == pytest.approx({6: 0.29, 8: 0.57}[n_targets], abs=0.05)
    answers_s, right = np.zeros((2, len(found), 5))
    for k, (_, rows) in enumerate(found):
        assert [row["value"] for row in rows].count("dot_no2_ON") == 10
        starts = [i for i, row in enumerate(rows) if row["value"].startswith("learningBlock")]
        for block, after in enumerate([*starts[1:], len(rows) - 1]):
            last = rows[after - 1]
            answers_s[k, block] = rows[after]["onset_s"] - last["onset_s"]
            pairs = zip(last["user_answer"].split("-"), last["correct_answer"].split("-"), strict=True)
            right[k, block] = np.mean([said == shown for said, shown in pairs])
        shown_s = [row["onset_s"] for row in rows if row["value"].endswith("_ON")][: len(tasks.SEQUENCES[n_targets])]
        np.testing.assert_allclose(np.diff(shown_s), 1.9)
    assert np.median(answers_s, axis=0) == pytest.approx(tasks.ANSWER_S[n_targets], rel=0.15)
    assert np.diff(right.mean(axis=0)).min() > 0
    assert right.mean(axis=0)[[0, 4]] == pytest.approx([0.40, 0.53], abs=0.06)


def test_younger_children_learn_six_targets_and_nobody_both():
    for row in everyone():
        both = row["seqLearning6target"], row["seqLearning8target"]
        assert both != ("available", "available")
        assert both[float(row["age"]) < people.LEARNING_AGE_YEARS] == "unavailable"


def test_the_beginning_of_another_task_stands_in_some_files_under_the_names_of_the_file(tmp_path):
    source = SimulatedSource("R1", P)
    begun = [
        one
        for row in source.rows.values()
        for one in people.recordings_of(row)
        if one.task == "DiaryOfAWimpyKid" and len(source.blocks(one)) > 1
    ]
    assert len(begun) == pytest.approx(0.072 * len(source.rows), abs=6)
    values = set()
    for recording in begun:
        path = f"{recording.folder}/{recording.stem}_events.tsv"
        source.write(path, tmp_path / "events.tsv")
        written = read_tsv(tmp_path / "events.tsv")
        blocks = source.blocks(recording)
        meant = [row["value"] for block in blocks for row in block.rows[:-1]]
        read = [{"onset_s": float(row["onset"]), "value": row["value"]} for row in written]
        assert [row["value"] for row in tasks.as_meant(read)] == meant
        values |= {row["value"] for row in written}
        assert (np.diff([row["onset_s"] for row in read]) >= 0).all()
        duration_s = sum(block.rows[-1]["onset_s"] for block in blocks)
        assert source.signal_uv(recording).shape[1] == pytest.approx(100 * duration_s, abs=1)
    assert "contrastTrial_start" in values
    assert not values & {"left_target", "left_buttonPress", "right_buttonPress"}


def test_presses_in_a_real_movie_file_are_followed(hbn_metadata, tmp_path):
    folder = tmp_path / "R1/sub-X/eeg"
    folder.mkdir(parents=True)
    (tmp_path / "R1/participants.tsv").write_text(
        "participant_id\trelease_number\tsex\tage\tp_factor\tattention\tinternalizing\texternalizing\n"
        "sub-X\tR1\tF\t10.0\t0.1\t0.1\t0.1\t0.1\n"
    )
    stem = "sub-X_task-DiaryOfAWimpyKid"
    lines = [(0, "9999", "9999"), (4.4, "video_start", 81), (121.8, "video_stop", 101)]
    lines += [(160, "contrastChangeB2_start", 95), (165, "contrastTrial_start", 5), (168, "stim_ON", 8)]
    lines += [(169.5, "dot_no3_ON", 13), (171, "contrastTrial_start", 5)]
    with open(folder / f"{stem}_events.tsv", "w", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(["onset", "duration", "sample", "value", "event_code"])
        table.writerows([onset, "n/a", 500 * onset, value, code] for onset, value, code in lines)
    (folder / f"{stem}_eeg.json").write_text('{"SamplingFrequency": 500, "RecordingDuration": 180.0}')
    source = SimulatedSource("R1", P.model_copy(update={"metadata_dir": str(tmp_path)}))
    recording = Recording("sub-X", "DiaryOfAWimpyKid", None)
    rows = source.events(recording)
    assert [row["value"] for row in rows[5:7]] == ["left_target", "right_buttonPress"]
    uv = evoked_uv(rows, task="DiaryOfAWimpyKid")
    assert uv["left_motor"][16950] == pytest.approx(-9, abs=0.2)  # the right hand's press
    assert uv["parietal"][16950] == pytest.approx(uv["parietal"][16000:].max(), abs=0.5)
    assert np.abs(uv["occipital"][500:12100]).max() > 1  # the film
    assert np.abs(uv["occipital"][12300:16000]).max() == 0


def test_presses_of_tasks_share_physiology_but_not_their_form():
    click = evoked_uv(rows_of((1.0, "symbolSearch_start"), (10.0, "trialResponse"), (14.0, "end")))
    target = {"onset_s": 8.5, "value": "left_target"}
    press = {"onset_s": 10.0, "value": "right_buttonPress", "feedback": "smiley_face"}
    contrast = evoked_uv([target, press, *rows_of((10.9, "contrastTrial_start"), (14.0, "end"))])
    hand = evoked.mouse_hand(P.seed, ADULT)
    other = f"{tasks.contralateral(hand)}_motor"
    around = slice(800, 1020)
    for name, uv in ((other, click), ("left_motor", contrast)):
        assert uv[name][around].argmin() == 200  # both negative, and most at the press
        assert uv["parietal"][around].max() > 2
    assert contrast["right_motor"][around].min() == 0
    assert click[f"{hand}_motor"][around].min() < -0.5  # clicks prepare both sides
    assert contrast["parietal"][around].argmax() == pytest.approx(200, abs=1)
    assert click["parietal"][around].argmax() < 185  # decided before the hand moves
    names = ("parietal", "left_motor", "right_motor", "midline", "occipital")
    maps = [np.array([uv[name][980:1001].mean() for name in names]) for uv in (click, contrast)]
    cosine = maps[0] @ maps[1] / np.linalg.norm(maps[0]) / np.linalg.norm(maps[1])
    assert 0.3 < cosine < 0.95


@pytest.mark.parametrize("feedback", [{"feedback": "non_target"}, {}])
def test_presses_that_answer_nothing_have_a_motor_potential_alone(feedback):
    early = {"onset_s": 6.0, "value": "left_buttonPress", **feedback}
    uv = evoked_uv([*rows_of((4.0, "contrastTrial_start")), early, *rows_of((9.0, "end"))])
    assert uv["right_motor"][600] == pytest.approx(-9, abs=0.1)
    assert {name for name, course in uv.items() if np.abs(course).max() > 0} == {"right_motor"}


def test_clicks_of_sequence_learning_have_no_rows_but_a_potential():
    rows = tasks.event_table(P, ADULT, Recording(ADULT.participant_id, "seqLearning8target", None))
    hand = evoked.mouse_hand(P.seed, ADULT)
    motor_uv = evoked_uv(rows, task="seqLearning8target")[f"{tasks.contralateral(hand)}_motor"]
    starts = [i for i, row in enumerate(rows) if row["value"].startswith("learningBlock")]
    for begin, after in zip(starts, [*starts[1:], len(rows) - 2], strict=True):
        answer = slice(*(round(100 * rows[i]["onset_s"]) for i in (after - 1, after)))
        shown = slice(round(100 * rows[begin]["onset_s"]) + 200, answer.start)  # without the fall of the last click
        assert motor_uv[answer].min() < -2
        assert np.abs(motor_uv[shown]).max() < 0.01


def test_onsets_are_seen_as_their_task_shows_them():
    page = evoked_uv(rows_of((0.0, "newPage"), (5.0, "newPage"), (12.0, "end")))
    left_uv = page["left_occipital"]
    assert left_uv[:400].max() == 0  # row 0 of a real table is spurious
    assert 8 <= left_uv[500:530].argmax() <= 13
    dots = evoked_uv(rows_of((5.0, "dot_no1_ON"), (10.0, "dot_no5_ON"), (15.0, "end")), task="seqLearning8target")
    for at, near, far in ((500, "left", "right"), (1000, "right", "left")):  # dot 1 is on the right, dot 5 on the left
        assert dots[f"{near}_occipital"][at : at + 30].max() > 2 * dots[f"{far}_occipital"][at : at + 30].max()
    stimulus = evoked_uv(rows_of((5.0, "stim_ON"), (12.0, "end")), task="surroundSupp")
    assert 9 <= stimulus["occipital"][500:560].argmax() <= 15


def test_a_film_evokes_the_same_in_everybody_at_its_own_time():
    other = people.Person("sub-NDARBB002BBB", 9.0, (1.0, 0.0, 0.0, 0.0))

    def watched(film: str, one: people.Person, start_s: float) -> np.ndarray:
        code = tasks.VIDEO_CODES[film][0]
        rows = [{"onset_s": start_s, "value": "video_start", "event_code": str(code)}, *rows_of((120.0, "end"))]
        begin = round(100 * start_s)
        return evoked_uv(rows, one, film)["occipital"][begin : begin + 10000]

    first, second = watched("ThePresent", ADULT, 1.04), watched("ThePresent", other, 4.5)
    assert np.corrcoef(first, second)[0, 1] > 0.99
    assert first.std() != pytest.approx(second.std(), rel=0.01)  # but not as strong
    assert abs(np.corrcoef(first, watched("DespicableMe", ADULT, 1.04))[0, 1]) < 0.2
    assert 0.5 < first.std() < 4


@pytest.mark.parametrize("task", ["symbolSearch", "seqLearning8target", "ThePresent"])
def test_a_recording_is_the_same_whatever_was_made_before_it(task):
    source = SimulatedSource("R1", P)
    first, second = [Recording.of(path) for path in source.paths() if path.endswith(f"_task-{task}_events.tsv")][:2]
    alone_uv = source.signal_uv(second)
    after = SimulatedSource("R1", P)
    after.signal_uv(first)
    assert after.signal_uv(second).tobytes() == alone_uv.tobytes()
