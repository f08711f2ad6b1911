"""The simulated cohort: real statistics, plausible signals, the same bytes every time."""

import numpy as np
import pytest
from clone import REPOSITORY

from hbn import params
from hbn.data import cleaning, events, signals
from hbn.data.bids import CHANNELS, FACTORS, Recording
from hbn.files import read_json, read_tsv
from hbn.simulator import ceiling, eeg, evoked, people, tasks
from hbn.sources import simulated as sources

P = params.load(REPOSITORY / "params.yaml").simulator
QUICK = P.model_copy(update={"sfreq_hz": 100})


def trials(release: str) -> list[tuple[people.Person, events.Trial]]:
    """Run-1 trials of a whole release, parsed back from its event tables."""
    found = []
    for row in people.participants_table(P.seed, release):
        one = people.person(row)
        rows = tasks.event_table(P, one, Recording(one.participant_id, events.CONTRAST_CHANGE, 1))
        table = [events.Event(r["onset_s"], r["value"], r.get("feedback", "n/a")) for r in rows[:-1]]
        parsed, dropped = events.contrast_trials(table, 1)
        assert not dropped
        assert len(parsed) == 24
        found += [(one, trial) for trial in parsed]
    return found


def test_behaviour_has_the_statistics_of_the_real_tables():
    found = [pair for release in ("R1", "R2", "R3", "R4") for pair in trials(release)]
    rt_s = np.array([t.rt_s for _, t in found if t.rt_s is not None])
    outcomes = [t.outcome for _, t in found]
    assert rt_s.mean() == pytest.approx(1.584, abs=0.04)
    assert rt_s.std() == pytest.approx(0.40, abs=0.03)
    quantiles = [0.24, 0.93, 1.36, 1.60, 1.85, 2.21, 2.35]
    assert np.quantile(rt_s, [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]) == pytest.approx(quantiles, abs=0.06)
    assert np.mean(rt_s < 0.5) == pytest.approx(0.02, abs=0.01)
    assert outcomes.count("miss") / len(found) == pytest.approx(0.15, abs=0.03)
    assert outcomes.count("wrong") / len(found) == pytest.approx(0.105, abs=0.025)
    assert np.mean([t.early_press for _, t in found]) == pytest.approx(0.13, abs=0.02)
    assert np.mean([t.fast_block for _, t in found]) == pytest.approx(0.053, abs=0.025)
    foreperiods = [round(t.foreperiod_s, 3) for _, t in found if not t.fast_block]
    assert {f: round(foreperiods.count(f) / len(foreperiods), 3) for f in set(foreperiods)} == {
        2.8: 0.333, 4.4: 0.333, 6.0: 0.333
    }  # fmt: skip
    assert np.mean([t.n_presses_after > 1 for _, t in found]) == pytest.approx(0.06, abs=0.02)
    speed = {False: 1.0, True: events.FAST}
    shown = [(t.side, round(t.foreperiod_s * speed[t.fast_block], 1)) for _, t in found]
    assert len({tuple(shown[k : k + 24]) for k in range(0, len(shown), 24)}) == 36

    by_person = {}
    for one, trial in found:
        by_person.setdefault(one, []).append(trial)
    people = [one for one, own in by_person.items() if any(t.rt_s for t in own)]
    own_rt_s = [np.mean([t.rt_s for t in by_person[one] if t.rt_s]) for one in people]
    misses = [np.mean([t.rt_s is None for t in by_person[one]]) for one in people]
    correct = [np.mean([t.outcome == "correct" for t in by_person[one]]) for one in people]
    age = [one.age_years for one in people]
    assert np.std(own_rt_s) == pytest.approx(0.20, abs=0.03)  # 0.18, and the noise of 20 trials
    r = [np.corrcoef(age, x)[0, 1] for x in (own_rt_s, correct, misses)]
    assert r == pytest.approx([-0.25, 0.46, -0.51], abs=0.1)


def test_participants_have_the_marginals_and_correlations_of_the_real_ones():
    rows = [row for i in range(1, 9) for row in people.participants_table(P.seed, f"R{i}")]
    assert len({row["participant_id"] for row in rows}) == len(rows)
    age = np.array([float(row["age"]) for row in rows])
    assert np.median(age) == pytest.approx(9.6, abs=0.4)
    assert np.mean([row["sex"] == "M" for row in rows]) == pytest.approx(0.66, abs=0.04)
    known = [row for row in rows if row["p_factor"] != "n/a"]
    assert 1 - len(known) / len(rows) == pytest.approx(0.022, abs=0.012)
    values = np.array([[float(row[f]) for f in FACTORS] + [float(row["age"]), row["sex"] == "M"] for row in known])
    r = np.corrcoef(values.T)
    assert r[0, 2] == pytest.approx(0.23, abs=0.08)
    assert r[2, 3] == pytest.approx(-0.24, abs=0.08)
    assert r[4, 2] == pytest.approx(0.19, abs=0.08)
    assert r[5, 1] == pytest.approx(0.16, abs=0.08)


@pytest.mark.parametrize(("file_format", "atol_uv"), [("set", 1e-3), ("bdf", 1e-3)])
def test_files_read_back_by_mne_are_what_was_simulated(tmp_path, file_format, atol_uv):
    source = sources.SimulatedSource("R1", QUICK.model_copy(update={"file_format": file_format}))
    path = next(p for p in source.paths() if p.endswith(f"RestingState_eeg.{file_format}"))
    for name in ("a", "b"):
        source.write(path, tmp_path / f"{name}.{file_format}")
    assert (tmp_path / f"a.{file_format}").read_bytes() == (tmp_path / f"b.{file_format}").read_bytes()
    read = signals.read_signal(tmp_path / f"a.{file_format}")
    expected_uv = source.signal_uv(Recording.of(path))
    assert read.sfreq_hz == 100
    np.testing.assert_allclose(read.data_uv[:, : expected_uv.shape[1]], expected_uv, atol=atol_uv)
    assert (expected_uv[CHANNELS.index("Cz")] == 0).all()


def test_eyes_closed_raise_alpha_and_the_ramp_ends_at_the_response():
    one = people.Person("sub-NDARAA001AAA", 10.0, (0.0, 0.0, 0.0, 0.0))
    resting = Recording(one.participant_id, "RestingState", None)
    rows = tasks.event_table(P, one, resting)
    data_uv = eeg.recording_uv(one, resting, rows, QUICK)
    occipital = data_uv[CHANNELS.index("E75")] - data_uv[CHANNELS.index("E11")]
    power = {}
    for name, begin_s in (("open", 7), ("closed", 27)):
        hz, db = cleaning.power_db(occipital[None, begin_s * 100 : (begin_s + 18) * 100], 100)
        power[name] = db[(hz >= 8) & (hz <= 11)].max()
    assert power["closed"] > power["open"] + 3

    after_s = np.arange(0, 2.5, 0.01)
    for rt_s in (0.9, 1.5, 2.1):
        assert after_s[evoked.ramp(after_s, rt_s).argmax()] == pytest.approx(rt_s, abs=0.011)
        assert after_s[evoked.motor(after_s, rt_s).argmin()] == pytest.approx(rt_s, abs=0.011)
    assert evoked.ramp(after_s, None).max() <= evoked.MISS_RAMP


def test_factors_act_on_the_features_they_are_said_to():
    everyone = [people.person(row) for row in people.participants_table(P.seed, "R1")]
    full = P.model_copy(update={f"effect_{factor}": 1.0 for factor in FACTORS})
    assert all(r > 0.9 for r in people.factor_ceiling(everyone, full).values())
    none = P.model_copy(update={f"effect_{factor}": 0.0 for factor in FACTORS})
    assert all(abs(r) < 0.25 for r in people.factor_ceiling(everyone, none).values())


def test_the_ceiling_rises_with_the_signal_from_nothing():
    outcomes = [(t.rt_s, t.side) for _, t in trials("R1")]
    scores = [ceiling.ceiling(outcomes, P.model_copy(update={"ramp_uv": uv}), n_draws=300) for uv in (0.0, 10.0, 40.0)]
    evoked = [score["challenge1_evoked_pearson_r"] for score in scores]
    both = [score["challenge1_pearson_r"] for score in scores]
    assert abs(evoked[0]) < 0.15
    assert evoked[0] < evoked[1] < evoked[2]
    assert evoked[2] > 0.85
    assert both[0] > 0.3  # rhythms alone tell something
    assert all(more > less - 0.05 for more, less in zip(both, evoked, strict=True))


def test_the_ramp_is_seen_at_the_response_in_the_average():
    source = sources.SimulatedSource("R1", QUICK)
    pairs = []
    for name in list(source.rows)[:6]:
        recording = Recording(name, events.CONTRAST_CHANGE, 1)
        rows = source.events(recording)
        data_uv = cleaning.filter_and_resample(
            eeg.recording_uv(people.person(source.rows[name]), recording, rows, QUICK), 100, 100, 0.5, 20, 60
        )
        parietal = data_uv[CHANNELS.index("E62")] - np.median(data_uv, axis=0)
        for trial in tasks.trials_of(rows):
            if trial["rt_s"] is not None and trial["rt_s"] > 1.2:
                at = round(100 * (trial["target_s"] + trial["rt_s"]))
                pairs.append(parietal[at - 100 : at + 60])
    average = np.mean([one for one in pairs if len(one) == 160], axis=0)  # (T,) around the response
    assert abs(average.argmax() - 100) <= 6
    assert average.max() > average[:20].mean() + 5


def test_a_copied_block_is_the_next_runs_block(tmp_path):
    source = sources.SimulatedSource("R1", QUICK)
    recording = next(
        one
        for row in source.rows.values()
        for one in people.recordings_of(row)
        if tasks.has_copy_of_next(QUICK.seed, one)
    )
    path = f"{recording.folder}/{recording.stem}_events.tsv"
    source.write(path, tmp_path / "events.tsv")
    table = events.read_events(tmp_path / "events.tsv")
    own, dropped = events.contrast_trials(table, recording.run)
    assert (len(own), dropped) == (24, {"foreign_block": 24})
    after = Recording(recording.participant_id, recording.task, recording.run + 1)
    copied, _ = events.contrast_trials(table, after.run)
    offset_s = copied[0].onset_s
    source.write(f"{after.folder}/{after.stem}_events.tsv", tmp_path / "next.tsv")
    original, _ = events.contrast_trials(events.read_events(tmp_path / "next.tsv"), after.run)
    offset_s -= original[0].onset_s
    assert [t.onset_s - offset_s for t in copied] == pytest.approx([t.onset_s for t in original], abs=0.011)
    whole = source.signal_uv(recording)
    start = round(offset_s * 100)
    one = people.person(source.rows[recording.participant_id])
    copy = eeg.recording_uv(one, after, source.events(after), QUICK)
    np.testing.assert_array_equal(whole[:, start:], copy)


def test_real_tables_stay_as_they_are_but_for_another_rate(hbn_metadata, tmp_path):
    as_recorded = sources.SimulatedSource("R1", P.model_copy(update={"metadata_dir": str(hbn_metadata)}))
    slower = sources.SimulatedSource("R1", QUICK.model_copy(update={"metadata_dir": str(hbn_metadata)}))
    stem = "sub-NDARAC904DMU/eeg/sub-NDARAC904DMU_task-surroundSupp_run-1"
    assert "annex_sizes.tsv" not in as_recorded.paths()
    assert f"{stem}_eeg.set" in as_recorded.paths()
    for suffix in ("events.tsv", "eeg.json", "channels.tsv"):
        as_recorded.write(f"{stem}_{suffix}", tmp_path / suffix)
        assert (tmp_path / suffix).read_bytes() == (hbn_metadata / f"R1/{stem}_{suffix}").read_bytes()
        slower.write(f"{stem}_{suffix}", tmp_path / f"slower_{suffix}")
    last = read_tsv(tmp_path / "events.tsv")[-1]
    assert (last["value"], last["sample"]) == ("boundary", "146709.5")
    assert read_tsv(tmp_path / "slower_events.tsv")[-1] == last | {"sample": "29341.9"}
    assert read_json(tmp_path / "slower_eeg.json")["SamplingFrequency"] == 100


@pytest.mark.parametrize(
    "name",
    [
        *("surroundSupp_run-1", "ThePresent", "RestingState", "contrastChangeDetection_run-1"),
        *("symbolSearch", "seqLearning8target"),
    ],
)
def test_tables_look_like_real_ones(hbn_metadata, tmp_path, name):
    source = sources.SimulatedSource("R1", QUICK)
    paths = [path for path in source.paths() if path.endswith(f"_task-{name}_events.tsv")]
    path = next(path for path in paths if len(source.blocks(Recording.of(path))) == 1)
    source.write(path, tmp_path / "events.tsv")
    ours = read_tsv(tmp_path / "events.tsv")
    tables = [read_tsv(path) for path in sorted(hbn_metadata.glob(f"R1/sub-*/eeg/*_task-{name}_events.tsv"))]
    assert list(ours[0]) == list(tables[0][0])
    assert ours[0] in [table[0] for table in tables]
    pairs = {(row["value"], row["event_code"], row["duration"]) for table in tables for row in table}
    assert {(row["value"], row["event_code"], row["duration"]) for row in ours} <= pairs
    header = (hbn_metadata / "R1/participants.tsv").read_text().splitlines()[0]
    source.write("participants.tsv", tmp_path / "participants.tsv")
    assert (tmp_path / "participants.tsv").read_text().splitlines()[0] == header
