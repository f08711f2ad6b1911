"""`dvc repro` on a terminal: one line per stage instead of the whole output of DVC and the stages."""

import codecs
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

LOG = Path(".scratch/repro.log")
ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[78=>])")  # colours, movements of the cursor
ENDS = re.compile(r"(\r*\n|\r+(?=[^\r\n]))")  # the end of a line or of one state of a progress bar
RUNNING = re.compile(r"Running stage '([^']+)'")
SKIPPED = re.compile(r"Stage '([^']+)' (didn't change, skipping|is cached)")
FINISHED = re.compile(r"(Updating|Generating) lock file")
NOTABLE = re.compile(r"(^|\s)(WARNING|ERROR|CRITICAL)\b")


class Display:
    """Writes the output of `dvc repro` as one line per stage."""

    def __init__(self, out: TextIO, n_stages: int, width: int):
        self.out, self.n_stages, self.width = out, n_stages, width
        self.n_ran = self.n_skipped = 0
        self.stage, self.start_s, self.state, self.output = "", 0.0, "", []

    def take(self, text: str, is_line: bool) -> None:
        """Show one line of output or, if `is_line` is false, the present state of a progress bar."""
        running, skipped = RUNNING.search(text), SKIPPED.search(text)
        if running or skipped or FINISHED.search(text):
            self.finish()
        if running:
            self.stage, self.start_s, self.state, self.output = running[1], time.monotonic(), "", []
        elif skipped:
            self.n_skipped += 1
        elif text.strip():
            self.state = text.strip()
            if is_line:
                self.output.append(text)
            if is_line and NOTABLE.search(text):
                self.line(text)
        self.refresh()

    def refresh(self) -> None:
        """Overwrite the last line with the present state of the running stage."""
        number = self.n_ran + self.n_skipped + bool(self.stage)
        took = duration(time.monotonic() - self.start_s) if self.stage else ""
        text = f"[{number:>2}/{self.n_stages}] {self.stage:<20} {took:>7}  {self.state}"
        self.out.write(f"\r\x1b[K{text[: self.width - 1]}")
        self.out.flush()

    def finish(self) -> None:
        """Write the final line of the stage that ran."""
        if self.stage:
            self.n_ran += 1
            took = duration(time.monotonic() - self.start_s)
            self.line(f"[{self.n_ran + self.n_skipped:>2}/{self.n_stages}] {self.stage:<20} {took:>7}")
        self.stage = self.state = ""

    def end(self, failed: bool) -> None:
        """Write the summary of the run and, after a failure, all output of the failed stage."""
        if failed and self.stage:
            self.line(f"All that {self.stage} wrote:")
            self.out.writelines(f"  {line}\n" for line in self.output)
        self.stage = ""
        self.line(f"{self.n_ran} stages ran, {self.n_skipped} up to date; complete output: {LOG}")

    def line(self, text: str) -> None:
        """Write a line that stays."""
        self.out.write(f"\r\x1b[K{text}\n")


def run_on_terminal(command: list[str], interrupts: list[int]) -> int:
    """Run `dvc repro` on a pseudo-terminal and display its output; returns its exit status.

    If the user interrupted the run (`interrupts`), the output of the stage is not shown again.
    """
    names = subprocess.run(["dvc", "stage", "list", "--name-only"], capture_output=True, text=True).stdout
    width = shutil.get_terminal_size().columns
    display = Display(sys.stdout, len(names.split()), width)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, max(40, width - 40)))  # progress bars fit behind the name of the stage
    with subprocess.Popen(command, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        LOG.parent.mkdir(exist_ok=True)
        with LOG.open("w", buffering=1) as log:
            for text, is_line in pieces(ours):
                if not text:
                    display.refresh()
                else:
                    display.take(text, is_line)
                if is_line:
                    log.write(f"{text}\n")
    os.close(ours)
    display.end(failed=process.returncode != 0 and not interrupts)
    return process.returncode


def pieces(terminal: int) -> Iterator[tuple[str, bool]]:
    """The output to a pseudo-terminal, until all writers close it, without colours: text, and whether it is a line.

    After each second without output, it yields an empty piece.
    """
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    rest = ""
    while True:
        if not select.select([terminal], [], [], 1.0)[0]:
            yield "", False
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:  # on Linux, when all writers have closed it
            data = b""
        if not data:
            break
        parts = ENDS.split(ESCAPES.sub("", rest + decode(data)))
        rest = parts.pop()
        for text, end in zip(parts[::2], parts[1::2], strict=True):
            yield text.rsplit("\r", 1)[-1], "\n" in end
    if rest.strip():
        yield rest, True


def duration(seconds: float) -> str:
    """A duration as text: 8 s, 2:05 or 1:02:05."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{s:02}"
    return f"{minutes}:{s:02}" if minutes else f"{s} s"
