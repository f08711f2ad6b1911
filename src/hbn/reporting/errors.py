"""All errors that the code can raise, collected from its source, with what to do about each."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hbn.reporting.tables import markdown

# What to do, by the beginning of the message, where the message itself does not say it (see ADVISES).
ADVICE = {
    # Parameters, files and machines.
    "<path> should hold a JSON object": "`git checkout` the file, or delete it and run the stage that makes it.",
    "<path> is not valid JSON": "`git checkout` the file, or delete it and run the stage that makes it.",
    "<path> is no table in UTF-8": "Save the table as UTF-8. If a stage made it, run the stage with `dvc repro -f`.",
    "<path> does not exist": "Run the stage that the message names, or check the path.",
    "<path>, line <line> holds a NUL": "Get the table anew from its source, or save it as UTF-8.",
    "exec.dask_scheduler needs Dask": "`pip install -r requirements-dask.txt`, or set the key to an empty text.",
    "exec.dask_scheduler: no scheduler": "Check the address, and that the scheduler still runs.",
    "the workers of <address>": "Start each worker with `dask worker --nthreads 1`.",
    "<path> is not valid YAML": "Mend the line that the message names. YAML wants blanks, not tabs.",
    "<path> is refused": "The message names each key, its value and what is allowed.",
    "the dvc that started this process is gone": "Run `dvc repro` again. It goes on from what is finished.",
    "<error>; the first lines of": "The first lines of the script say which arguments it takes.",
    # Fetching.
    "fetch.py does not know": "Use `--estimate` or `--refresh`.",
    "<release> is no release": "The first argument is a release, such as R1.",
    "<release>: the source lists no participants.tsv": "Check `data.url`: it must name the folder of one release.",
    "<where> has no column participant_id": "Give the table this column, as BIDS has it.",
    "AWS_CA_BUNDLE": "Let it name a file of certificates (PEM) that can be read.",
    "<where>: <text>; your institution": "Name the file of your institution's own certificates in `AWS_CA_BUNDLE`.",
    "data.url: <url> names no bucket": "Write it as `s3://bucket/prefix_{release}`.",
    "<where>: access denied (<words>) to a request": "A preset needs no account. For `data.url`, give credentials to "
    "the AWS chain: environment, `~/.aws` or the role of the machine.",
    "<filename> cannot be listed": "Give yourself the right to read this folder.",
    "data.url: <root> is no BIDS release": "Name the folder that holds `participants.tsv`.",
    "<root> cannot be read": "Check the file, its rights and its disk.",
    "<destination> has <n_bytes> bytes": "The file changed while it was copied. Run the same command again.",
    "<release>: no recording of data.tasks": "Choose tasks that the source has; the message lists them.",
    "<release>: participants.tsv (<in_table> ...)": "Compare the ids in `participants.tsv` with the folders.",
    "<error>, <MISMATCHES> times": "The object or the connection is damaged. Try another network, or another preset.",
    "data.releases: <release> is not on OpenNeuro": "Take one of the releases that the message lists.",
    "<path> is <kind> at the source": "Get the content with `datalad get`, or take another `data.preset`.",
    # Preparing the data.
    "<raw>/participants.tsv has no row": "Add the participant's row at the source, then `dvc repro -f fetch`.",
    "<path> is not the path of an HBN recording": "Rename the file as BIDS does.",
    "<unknown>: no kind or task of events": "Take names that the message lists.",
    "<root> should hold recordings of one sampling rate": "Run `dvc repro assemble`.",
    # Training.
    "<what> at step": "Lower `learning_rate` or `gradient_clip`, or look at the training items that the message lists.",
    "there is no <device>": "Set `exec.device` to `auto` or `cpu`.",
    "wrong numbers": "The GPU calculates wrongly. Set `exec.device` to `cpu`, and update its driver.",
    # Deployment and predictions.
    "<path> holds no recording (files": "Give a folder with files that end with `_eeg.set` or `_eeg.bdf`.",
    "no variant of <network> was accepted": "Raise `quantize.max_score_drop`, or add `fp32` to `quantize.variants`; "
    "`metrics/quantize.json` gives the reasons.",
    "a window is (<n_channels> channels": "Give a window of this shape to `Predictor`.",
    "the window holds NaN": "Remove what is not finite before you call `Predictor`.",
    "no window of a training participant": "Raise `data.n_participants`.",
    "the submission of <name>": "The network uses something that `submission.py` in the zip lacks: see Submitting.",
    "<path>: <problem>": "Do what the problem says; the next table lists the reasons for which a recording is refused.",
    "<problems> of <paths> recordings": "The lines above name each recording and why; see the next table.",
    # Reports.
    "board.py knows only": "Leave the other arguments out.",
    "`<name>` failed": "The message of git or DVC follows; run that command by itself.",
    "dvc.lock is out of date": "Run `dvc repro` and commit.",
}
# What to do about a refused recording, by the reason in rejected.tsv. The pipeline goes on without the recording.
REASONS = {
    "bad_channels": "Nothing, if there are few such recordings. Else raise `preprocess.max_bad_channel_fraction`.",
    "channels": "Export the recording with the 129 channels of the net, each once.",
    "epochs": "Export the continuous recording.",
    "events_columns": "Give the events table the columns `onset` and `value`.",
    "events_missing": "Put the events table beside the recording. Windows without events are used all the same.",
    "events_onsets": "Write onsets in seconds from the start of the recording, with a point.",
    "events_unreadable": "Mend the row that the message names.",
    "no_signal": "Nothing: most of the recording holds no signal.",
    "not_finite": "Export the recording without NaN.",
    "pointer": "Get the content with `datalad get` or `git lfs pull`.",
    "sampling_rate": "Lower `preprocess.lowpass_hz`, or export the recording at a higher rate.",
    "too_short": "Nothing, or lower `preprocess.min_duration_s`.",
    "units": "Export the recording in microvolts, or name the unit in its header.",
    "unreadable": "Get the file anew, or export it anew as `.set` or `.bdf`.",
}
# Headings, and the files of src/ whose errors stand under each. Refused recordings have a heading of their own.
GROUPS = {
    "Parameters, files and machines": ("hbn/files", "hbn/params", "hbn/stage", "hbn/parallel", "hbn/training/device"),
    "Fetching": ("fetch", "check", "hbn/sources", "hbn/data/participants", "hbn/data/manifest"),
    "Preparing the data": ("preprocess", "cache_windows", "assemble", "hbn/data"),
    "Training": ("pretrain", "challenge1", "challenge2", "hbn/networks", "hbn/training"),
    "Deployment and predictions": ("predict", "quantize", "submission", "benchmark", "hbn/deploy"),
    "Reports": ("",),
}
ONE_RECORDING = "A recording is refused"
PASSED_ON = "<error>"
# The place in a message after which it says what to do.
ADVISES = re.compile(r"; |: (?=(?:run|give|get|add|make room|set) )")


@dataclass(frozen=True)
class Error:
    """An error that a line of the code can raise."""

    file: str  # below src/, without .py
    reason: str  # why a recording is refused, as in rejected.tsv; empty for other errors
    message: str  # with <names> in place of values

    @property
    def group(self) -> str:
        if self.reason:
            return ONE_RECORDING
        return next(title for title, starts in GROUPS.items() if self.file.startswith(starts))

    @property
    def advice(self) -> str:
        """What to do, from REASONS or ADVICE, else from the end of the message itself."""
        if self.reason:
            return REASONS.get(self.reason, "")
        known = (advice for start, advice in ADVICE.items() if self.message.startswith(start))
        text = next(known, "".join(ADVISES.split(self.message, maxsplit=1)[1:]))
        return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""


def listing(source: Path) -> str:
    """All errors in Markdown: a table for each group, the last for recordings that are refused."""
    errors = raised(source)
    parts = []
    for title in GROUPS:
        rows = [(_code(error), error.advice) for error in errors if error.group == title]
        parts.append(f"### {title}\n\n{markdown(('message', 'what to do'), rows)}")
    by_reason = {reason: [_code(error) for error in errors if error.reason == reason] for reason in REASONS}
    rows = [(f"`{reason}`", REASONS[reason], "<br>".join(codes)) for reason, codes in by_reason.items()]
    parts.append(f"### {ONE_RECORDING}\n\n{markdown(('reason', 'what to do', 'messages'), rows)}")
    return "\n\n".join(parts)


def _code(error: Error) -> str:
    """The message as code in a table, without its advice."""
    first = ADVISES.split(error.message, maxsplit=1)[0]
    says_something = re.search("[a-z]{2}", re.sub("<[^>]*>", "", first))
    text = " ".join((first if says_something else error.message).split()).replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def raised(source: Path) -> list[Error]:
    """All HbnError and UnusableRecording in the files below `source` whose message stands in the code.

    If the message is a variable, its last assignment before the call counts. A call without a text passes on the
    message of another error.
    """
    errors = []
    for path in sorted(source.rglob("*.py")):
        file = path.relative_to(source).with_suffix("").as_posix()
        for call, function in calls(ast.parse(path.read_text())):
            reason, messages = said(call, function)
            errors += [Error(file, reason, message) for message in messages or ([PASSED_ON] if reason else [])]
    return list(dict.fromkeys(errors))


def calls(tree: ast.Module) -> Iterator[tuple[ast.Call, ast.AST]]:
    """The calls that construct an error, each with the function around it."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and _name(node.func) in ("HbnError", "UnusableRecording", "unreadable"):
                    yield node, function


def said(call: ast.Call, function: ast.AST) -> tuple[str, list[str]]:
    """The reason (of a refused recording) and the messages of a call."""
    name, message = _name(call.func), call.args[-1]
    if name == "HbnError":
        return "", _texts(message, function)
    if name == "unreadable":
        return "unreadable", [f"<file>: {text}" for text in _texts(message, function)]
    reasons = _texts(call.args[0], function)
    return (reasons[0] if reasons else ""), _texts(message, function)


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _texts(node: ast.AST, function: ast.AST) -> list[str]:
    """The values of a text expression, as far as they stand in the code."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(map(_part, parts))]
        case ast.IfExp(body=first, orelse=second):
            return _texts(first, function) + _texts(second, function)
        case ast.Name(id=name):
            before = [
                line.value
                for line in ast.walk(function)
                if isinstance(line, ast.Assign) and line.lineno < node.lineno and ast.unparse(line.targets[0]) == name
            ]
            return _texts(before[-1], function) if before else []
    return []


def _part(node: ast.AST) -> str:
    """Text of an f-string, or the <name> of a value in it."""
    return f"<{_label(node.value)}>" if isinstance(node, ast.FormattedValue) else str(ast.literal_eval(node))


def _label(node: ast.AST) -> str:
    """A short name for a value in a message."""
    match node:
        case ast.Attribute(value=value, attr="__name__"):
            return f"type of {_label(value)}"
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(args=[first, *_]) | ast.Subscript(value=first) | ast.BinOp(left=first):
            return _label(first)
    return "…"
