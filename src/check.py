"""What the pipeline would use of a release in a folder, and what not and why: `python src/check.py FOLDER`.

Reads headers and tables only, and says it within seconds. The sections data and windows of params.yaml decide what is
asked for, as in fetch: other tasks or all participants with data.tasks and data.n_participants.
"""

import logging
from collections import Counter, defaultdict
from pathlib import Path

from hbn.data.absent import why_absent
from hbn.data.bids import EEG_SUFFIXES, Recording, UnusableRecording
from hbn.data.events import CONTRAST_CHANGE, contrast_trials, read_events
from hbn.data.headers import problem_of
from hbn.files import HbnError, read_tsv
from hbn.sources.folder import FolderSource
from hbn.sources.plan import Plan, by_reason, make_plan, sort_paths
from hbn.stage import run

log = logging.getLogger(__name__)


def main(p, folder: str) -> None:
    source = FolderSource(folder)
    table = source.root / "participants.tsv"
    if reason := why_absent(table, source.root):
        raise HbnError(reason)
    plan = make_plan(source.root.name, p.data, sort_paths(source.paths()), read_tsv(table))
    print(f"{source.root}, for data.tasks {', '.join(p.data.tasks)}, data.n_participants {p.data.n_participants}")
    unusable = problems(source, plan)
    usable = [recording for recording in plan.recordings if recording not in unusable]
    print(f"\nUsed: {len({one.participant_id for one in usable})} participants, {len(usable)} recordings")
    for column, n in sorted(Counter(one.column for one in usable).items()):
        print(f"  {n:6} {column}")
    print_people(plan, {one.participant_id for one in usable})
    print_trials(source.root, usable)
    print_unused(plan, unusable)


def problems(source: FolderSource, plan: Plan) -> dict[Recording, tuple[str, str]]:
    """The file and the reason for every recording that fetch or preprocess would refuse."""
    found = {}
    for recording, paths in plan.recordings.items():
        for path in paths:
            reason = why_absent(source.root / path, source.root)
            if not reason and path.endswith(tuple(f"_eeg{suffix}" for suffix in EEG_SUFFIXES)):
                reason = problem_of(source.root / path)
            if reason:
                found.setdefault(recording, (path, reason))
    return found


def print_people(plan: Plan, used: set[str]) -> None:
    """Whether what the networks are compared with, and challenge 2, is known of the participants."""
    people = [one for one in plan.participants if one.participant_id in used]
    sexes, ages = Counter(one.sex for one in people), [one.age_years for one in people if one.age_years is not None]
    years = f"{min(ages):.1f} to {max(ages):.1f} years" if ages else "of unknown age"
    print(
        f"  {sexes['F']} female, {sexes['M']} male, {sexes[None]} unknown; {years}; "
        f"{sum(one.factors is not None for one in people)} with all four factors"
    )


def print_trials(root: Path, recordings: list[Recording]) -> None:
    """Trials of contrast change detection by outcome, and those dropped by reason."""
    outcomes, dropped, unusable = Counter(), Counter(), Counter()
    contrast = [recording for recording in recordings if recording.task == CONTRAST_CHANGE]
    for recording in contrast:
        try:
            events = read_events(root / recording.folder / f"{recording.stem}_events.tsv")
        except (UnusableRecording, HbnError) as error:
            unusable[str(error)] += 1
            continue
        trials, reasons = contrast_trials(events, recording.run)
        outcomes += Counter(trial.outcome for trial in trials)
        dropped += reasons
    if contrast:
        print(f"\nTrials of {CONTRAST_CHANGE}: {outcomes.total()} {_counts(outcomes)}")
    if dropped:
        print(f"  dropped: {_counts(dropped)}")
    for reason in unusable:
        print(f"  without trials: {reason}")


def print_unused(plan: Plan, unusable: dict[Recording, tuple[str, str]]) -> None:
    """Everything that is not used, by reason."""
    by_text = defaultdict(list)
    for path, reason in unusable.values():
        by_text[reason].append(path)
    if unusable:
        print(f"\nRefused: {len(unusable)} recordings")
        for reason, paths in by_text.items():
            print(f"  {len(paths):6} {reason}: {paths[0]}{' and more' if len(paths) > 1 else ''}")
    if plan.unused:
        print("\nNot used, in files")
        for reason, facts in by_reason(plan.unused).items():
            print(f"  {facts['files']:6} {reason}: {facts['such_as']}{' and more' if facts['files'] > 1 else ''}")
    without = Counter(row["reason"] for row in plan.selection if row["reason"].startswith(("no ", "not in ")))
    if without:
        print("\nNot used, in participants")
        for reason, n in without.items():
            print(f"  {n:6} {reason}")
    for remark in plan.remarks:
        print(f"\n{remark}")
    if plan.called_available:
        n = len(plan.called_available)
        print(f"\n{n} recordings are called available but are not there, such as {plan.called_available[0]}")


def _counts(counter: Counter) -> str:
    return "(" + ", ".join(f"{n} {name}" for name, n in sorted(counter.items())) + ")"


if __name__ == "__main__":
    run(main, reads=("data",))
