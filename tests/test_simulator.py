"""The simulated cohort: real statistics, plausible signals, the same bytes every time."""

from pathlib import Path

import numpy as np
import pytest

from hbn import behaviour, bids, events, params, signal, simulator, sources
from hbn.bids import CHANNELS, FACTORS, Recording

P = params.load(Path(__file__).parents[1] / "params.yaml").simulator
QUICK = P.model_copy(update={"sfreq_hz": 100})


def trials(release: str) -> list[tuple[behaviour.Person, events.Trial]]:
    """Run-1 trials of a whole release, parsed back from its event tables."""
    found = []
    for row in behaviour.participants_table(P.seed, release):
        one = behaviour.person(row)
        rows = behaviour.event_table(P.seed, one, Recording(one.participant_id, events.CONTRAST_CHANGE, 1), 6.0, 1)
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
    assert rt_s.mean() == pytest.approx(1.584, abs=0.06)
    assert rt_s.std() == pytest.approx(0.40, abs=0.04)
    assert np.quantile(rt_s, [0.05, 0.5, 0.95]) == pytest.approx([0.93, 1.60, 2.21], abs=0.12)
    assert np.mean(rt_s < 0.5) == pytest.approx(0.02, abs=0.01)
    assert outcomes.count("miss") / len(found) == pytest.approx(0.15, abs=0.03)
    assert outcomes.count("wrong") / len(found) == pytest.approx(0.105, abs=0.025)
    assert np.mean([t.early_press for _, t in found]) == pytest.approx(0.13, abs=0.02)
    assert np.mean([t.fast_block for _, t in found]) == pytest.approx(0.053, abs=0.025)
    foreperiods = [round(t.foreperiod_s, 3) for _, t in found if not t.fast_block]
    assert {f: round(foreperiods.count(f) / len(foreperiods), 3) for f in set(foreperiods)} == {
        2.8: 0.333, 4.4: 0.333, 6.0: 0.333
    }  # fmt: skip
    age = np.array([one.age_years for one, t in found if t.rt_s is not None])
    assert np.corrcoef(age, rt_s)[0, 1] == pytest.approx(-0.2, abs=0.12)


def test_participants_have_the_marginals_and_correlations_of_the_real_ones():
    rows = [row for i in range(1, 9) for row in behaviour.participants_table(P.seed, f"R{i}")]
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
    read = bids.read_signal(tmp_path / f"a.{file_format}")
    expected_uv = source.signal_uv(Recording.of(path))
    assert read.sfreq_hz == 100
    np.testing.assert_allclose(read.data_uv[:, : expected_uv.shape[1]], expected_uv, atol=atol_uv)
    assert (expected_uv[CHANNELS.index("Cz")] == 0).all()


def test_eyes_closed_raise_alpha_and_the_ramp_ends_at_the_response():
    one = behaviour.Person("sub-NDARAA001AAA", 10.0, (0.0, 0.0, 0.0, 0.0))
    resting = Recording(one.participant_id, "RestingState", None)
    rows = behaviour.event_table(P.seed, one, resting, 6.0, 1)
    data_uv = simulator.recording_uv(one, resting, rows, QUICK)
    occipital = data_uv[CHANNELS.index("E75")] - data_uv[CHANNELS.index("E11")]
    power = {}
    for name, begin_s in (("open", 7), ("closed", 27)):
        hz, db = signal.power_db(occipital[None, begin_s * 100 : (begin_s + 18) * 100], 100)
        power[name] = db[(hz >= 8) & (hz <= 11)].max()
    assert power["closed"] > power["open"] + 3

    after_s = np.arange(0, 2.5, 0.01)
    for rt_s in (0.9, 1.5, 2.1):
        assert after_s[simulator.ramp(after_s, rt_s).argmax()] == pytest.approx(rt_s, abs=0.011)
        assert after_s[simulator.motor(after_s, rt_s).argmin()] == pytest.approx(rt_s, abs=0.011)
    assert simulator.ramp(after_s, None).max() <= simulator.MISS_RAMP


def test_factors_act_on_the_features_they_are_said_to():
    people = [behaviour.person(row) for row in behaviour.participants_table(P.seed, "R1")]
    full = P.model_copy(update={f"effect_{factor}": 1.0 for factor in FACTORS})
    assert all(r > 0.9 for r in simulator.factor_ceiling(people, full).values())
    none = P.model_copy(update={f"effect_{factor}": 0.0 for factor in FACTORS})
    assert all(abs(r) < 0.25 for r in simulator.factor_ceiling(people, none).values())


def test_the_ceiling_rises_with_the_signal_from_nothing():
    outcomes = [(t.rt_s, t.side) for _, t in trials("R1")]
    r = [
        simulator.ceiling(outcomes, P.model_copy(update={"ramp_uv": uv}), n_draws=400)["challenge1_pearson_r"]
        for uv in (0.0, 10.0, 40.0)
    ]
    assert abs(r[0]) < 0.15
    assert r[0] < r[1] < r[2]
    assert r[2] > 0.85


def test_a_copied_block_is_the_next_runs_block(tmp_path):
    source = sources.SimulatedSource("R1", QUICK)
    recording = next(
        one
        for row in source.rows.values()
        for one in behaviour.recordings_of(row)
        if behaviour.has_copy_of_next(QUICK.seed, one)
    )
    path = f"{recording.folder}/{recording.stem}_events.tsv"
    source.write(path, tmp_path / "events.tsv")
    table = events.read_events(tmp_path / "events.tsv")
    own, dropped = events.contrast_trials(table, recording.run)
    assert (len(own), dropped) == (24, {"foreign_block": 24})
    after = sources.next_run(recording)
    copied, _ = events.contrast_trials(table, after.run)
    offset_s = copied[0].onset_s
    source.write(f"{after.folder}/{after.stem}_events.tsv", tmp_path / "next.tsv")
    original, _ = events.contrast_trials(events.read_events(tmp_path / "next.tsv"), after.run)
    offset_s -= original[0].onset_s
    assert [t.onset_s - offset_s for t in copied] == pytest.approx([t.onset_s for t in original], abs=0.011)
    whole = source.signal_uv(recording)
    start = round(offset_s * 100)
    np.testing.assert_array_equal(whole[:, start:], source.signal_uv_of_next(recording))
