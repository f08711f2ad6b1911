"""Predictions for recordings (.set, .bdf) or folders with recordings: python src/predict.py RECORDING ...

--csv FILE   one row per trial (or per window, without trials), with participant and recording
--json       all predictions as JSON on standard output

A recording that cannot be used has one row with the reason. The exit status is then 1, after all other predictions.

Reads  models/deploy, metrics/benchmark.json (which variant is fastest), the events beside each recording

For research only: not a medical device, not for any decision about a person.
"""

import argparse
import json
import logging
import signal as system_signal
from dataclasses import asdict
from pathlib import Path

from hbn.deploy.predictions import (
    COLUMNS,
    RecordingPredictions,
    doubles_of,
    find_recordings,
    no_prediction,
    predict_recording,
    why_no_trial,
)
from hbn.deploy.runtime import Predictor
from hbn.files import HbnError, write_csv
from hbn.stage import progress, run

log = logging.getLogger(__name__)
NOTICE = "For research only: not a medical device, not for any decision about a person."
NO_TRIAL = """
There is no trial of contrast change detection: {}.
Each window is read as if a target had come {:g} s before it, so response times mean little if none had."""


def main(p, *arguments: str) -> None:
    options = parse(arguments)
    paths, predictor = find_recordings(options.recordings), Predictor(threads=p.exec.threads)
    predictions, given = [], set(paths)
    for path in progress(paths, unit="recording", disable=len(paths) == 1 or None):
        predictions.append(item := predicted(path, given, predictor, p.preprocess))
        if item.problem and len(paths) > 1:
            log.warning("%s: %s", path, item.problem)
    if options.csv:
        write_csv(options.csv, [row for item in predictions for row in item.rows], COLUMNS)
    if options.json:
        print(json.dumps([asdict(item) | {"path": str(item.path)} for item in predictions], indent=2, allow_nan=False))
    elif not options.csv:
        for item in predictions:
            if item.duration_s is not None or len(paths) > 1:  # the problem of a single one is the error at the end
                show(item, predictor.trial_offset_s)
        print(f"\n{NOTICE}")
    if problems := [item for item in predictions if item.problem]:
        first = f"{problems[0].path}: {problems[0].problem}"
        raise HbnError(first if len(paths) == 1 else f"{len(problems)} of {len(paths)} recordings, such as {first}")


def predicted(path: Path, paths: set[Path], predictor: Predictor, p) -> RecordingPredictions:
    """The predictions for one recording of `paths`, or why there are none."""
    try:
        if problem := doubles_of(path, paths):
            raise HbnError(problem)
        return predict_recording(path, predictor, p)
    except HbnError as error:
        return no_prediction(path, str(error))


def parse(arguments: tuple[str, ...]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="predict.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("recordings", nargs="+", help="files (.set, .bdf) or folders with recordings")
    parser.add_argument("--csv", type=Path, help="write one row per trial or window to this file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(arguments)


def show(item: RecordingPredictions, trial_offset_s: float) -> None:
    """Print a recording's predictions."""
    if item.duration_s is None:
        print(f"{item.path.name}: no prediction, {item.problem}")
        return
    print(f"{item.path.name}: {item.duration_s:.1f} s, bad channels: {', '.join(item.bad_channels) or 'none'}")
    if item.dropped_trials:
        print(f"Targets that are no trials: {', '.join(f'{n} {why}' for why, n in item.dropped_trials.items())}")
    if item.has_trials:
        print("From the event table beside it: target, side, true RT. Predicted: all other columns.")
    else:
        reason = f"the event table is not used, {item.problem}" if item.problem else why_no_trial(item.path)
        print(NO_TRIAL.format(reason, trial_offset_s))
    head = f"{'target at':>10} {'side':>6} {'true RT':>8}" if item.has_trials else f"{'window at':>10}"
    print(f"\n{head} {'RT':>7} {'80 % interval':>15} {'P(no response)':>15} {'P(correct)':>11}")
    for row in item.rows:
        print(f"{place(row)} {values(row)}")
    print(f"\nFactors in the units of participants.tsv (HBN: sd about 0.8), mean over {item.n_windows} windows:")
    for name, value in (item.factors or {}).items():
        print(f"  {name:<14} {value:+.2f}")


def place(row: dict) -> str:
    """The time of a trial or window, and the side and true response time of the trial."""
    if "window_s" in row:
        return f"{row['window_s']:>8.1f} s"
    true = "none" if row["true_rt_s"] is None else f"{row['true_rt_s']:.2f} s"
    return f"{row['target_s']:>8.1f} s {row['side']:>6} {true:>8}"


def values(row: dict) -> str:
    """The predictions for a trial or window, or why there are none."""
    if row["not_used"]:
        return f"  no prediction: {row['not_used']}"
    interval = f"{row['rt_low_s']:.2f} to {row['rt_high_s']:.2f} s"
    return f"{row['rt_s']:>5.2f} s {interval:>15} {row['p_miss']:>15.2f} {row['p_correct']:>11.2f}"


if __name__ == "__main__":
    system_signal.signal(system_signal.SIGPIPE, system_signal.SIG_DFL)  # `... | head` ends it without a word
    run(main, reads=("preprocess",))
