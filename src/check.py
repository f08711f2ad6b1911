"""Check which files of a release the pipeline would use, and why not the others: `python src/check.py FOLDER`.

It reads headers and tables only, so it takes seconds, and it writes nothing. It checks the tasks of data.tasks in
params.yaml, for all participants.
"""

from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace

from hbn.data.absent import why_absent
from hbn.data.bids import Recording, UnusableRecording
from hbn.data.events import CONTRAST_CHANGE, contrast_trials, read_events
from hbn.data.participants import Participant
from hbn.data.signals import problem_of
from hbn.files import HbnError, read_tsv
from hbn.sources.folder import FolderSource
from hbn.sources.plan import NOT_IN_TABLE, OTHER_TASK, Listing, Plan, by_reason, make_plan, signals_of, sort_paths
from hbn.stage import run


def main(p, folder: str) -> None:
    source = FolderSource(folder)
    root, table = source.root, source.root / "participants.tsv"
    if reason := why_absent(table, root):
        raise HbnError(reason)
    listing = sort_paths(source.paths())
    everyone = SimpleNamespace(tasks=p.data.tasks, n_participants=0, participants=[], select="by_id")
    plan = make_plan(root.name, everyone, listing, read_tsv(table))
    reasons = {recording: why_refused(root, paths) for recording, paths in plan.recordings.items()}
    refused = {recording: reason for recording, reason in reasons.items() if reason}
    used = [recording for recording in plan.recordings if recording not in refused]
    print(f"Used of {root} (data.tasks: {', '.join(p.data.tasks)})")
    print_recordings(listing, plan, used)
    print_trials(root, used)
    print_refused(refused)
    print_unused(plan)


def why_refused(root: Path, paths: list[str]) -> str:
    """Why fetch or preprocess will refuse a recording, as far as the headers of its files show; else empty."""
    signals = signals_of(paths)
    if len(signals) > 1:
        return f"one recording in {len(signals)} files: {' and '.join(signals)}"
    for path in paths:
        if reason := why_absent(root / path, root):
            return reason
    reason = problem_of(root / signals[0])
    return f"{signals[0]}: {reason}" if reason else ""


def print_recordings(listing: Listing, plan: Plan, used: list[Recording]) -> None:
    """Print the participants and recordings that are used, and the number of other recordings by task."""
    people = {recording.participant_id for recording in used}
    participants = [person for person in plan.participants if person.participant_id in people]
    print(f"  {len(people)} participants: {_about(participants)}")
    print(f"  {len(used)} recordings")
    for column, n in sorted(Counter(recording.column for recording in used).items()):
        print(f"    {n:6} {column}")
    others = Counter(recording.column for recording in listing.recordings if recording not in plan.recordings)
    if others:
        print(f"\nNot used, recordings that data.tasks does not name, or of participants {NOT_IN_TABLE}")
        for column, n in sorted(others.items()):
            print(f"    {n:6} {column}")


def print_trials(root: Path, used: list[Recording]) -> None:
    """Print the trials of contrast change detection by outcome, and the dropped trials by reason."""
    outcomes, dropped, without = Counter(), Counter(), []
    contrast = [recording for recording in used if recording.task == CONTRAST_CHANGE]
    for recording in contrast:
        try:
            events = read_events(root / recording.folder / f"{recording.stem}_events.tsv")
        except HbnError as error:
            without.append(error.detail if isinstance(error, UnusableRecording) else str(error))
            continue
        trials, reasons = contrast_trials(events, recording.run)
        outcomes += Counter(trial.outcome for trial in trials)
        dropped += reasons
    if contrast:
        print(f"\nTrials of {CONTRAST_CHANGE}: {outcomes.total()} ({_counts(outcomes)})")
        print(f"  dropped: {_counts(dropped)}")
    for reason in without:
        print(f"  left out: {reason}")


def print_refused(refused: dict[Recording, str]) -> None:
    """Print the recordings at which fetch will stop or that preprocess will reject."""
    if refused:
        print(f"\nRefused, {len(refused)} recordings")
        for reason in refused.values():
            print(f"  {reason}")


def print_unused(plan: Plan) -> None:
    """Print all other unused files and participants by reason, and remarks on cells that were not understood."""
    odd = {reason: facts for reason, facts in by_reason(plan.unused).items() if reason != OTHER_TASK}
    for reason, facts in odd.items():
        print(f"\nNot used, {facts['files']} files: {reason}\n  such as {facts['such_as']}")
    people = defaultdict(list)
    for row in plan.selection:
        if row["chosen"] == "no":
            people[row["reason"]].append(row["participant_id"])
    for reason, names in people.items():
        print(f"\nNot used, {len(names)} participants: {reason}\n  such as {names[0]}")
    for remark in plan.remarks:
        print(f"\n{remark}")
    if absent := plan.called_available:
        print(f"\n{len(absent)} recordings are called available but are not there, such as {absent[0]}")


def _about(people: list[Participant]) -> str:
    sexes = Counter(person.sex for person in people)
    ages = [person.age_years for person in people if person.age_years is not None]
    years = f"{min(ages):.1f} to {max(ages):.1f} years" if ages else "no age known"
    factors = sum(person.factors is not None for person in people)
    return f"{sexes['F']} F, {sexes['M']} M, {sexes[None]} unknown; {years}; {factors} with all four factors"


def _counts(counter: Counter) -> str:
    return ", ".join(f"{n} {name}" for name, n in sorted(counter.items())) or "none"


if __name__ == "__main__":
    run(main, reads=("data.tasks",))
