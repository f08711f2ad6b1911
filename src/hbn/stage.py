"""How every stage script runs: checked parameters, one log format, readable errors."""

import ctypes
import fcntl
import inspect
import io
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

from tqdm import tqdm

from hbn import params
from hbn.files import HbnError, Store, write_json

log = logging.getLogger(__name__)
DURATIONS = "durations"  # folder in the scratch store with the duration of each stage's last run, for the page
LOG_EVERY_S = 60.0  # between lines on the progress of long work where there is no terminal
PR_SET_PDEATHSIG = 1  # option of the Linux call prctl: which signal this process gets when its parent ends


def run(main: Callable[..., None], reads: tuple[str, ...]) -> None:
    """Check all of params.yaml, then call `main(p, *arguments)`; exit with status 1 on HbnError, 130 on Ctrl-C.

    `p` holds only what `reads` names (a section such as 'pretrain' or a key such as 'data.url'),
    so that a stage cannot read a parameter that dvc.yaml does not declare for it. `p.exec` holds
    the settings that cannot change a result. Command-line arguments are passed on as text.
    """
    stage = os.environ.get("DVC_STAGE", Path(sys.argv[0]).stem)
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s {stage} %(levelname)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    try:
        try:
            inspect.signature(main).bind(None, *sys.argv[1:])
        except TypeError as error:
            raise HbnError(f"{error}; the first lines of {sys.argv[0]} say what it takes") from None
        # Of the processes that torchrun starts, which work together, the first takes the lock.
        lock = "DVC_STAGE" in os.environ and os.environ.get("RANK", "0") == "0"
        with alone(sys.argv[0]) if lock else nullcontext():
            begin = time.monotonic()
            main(view(params.load(), (*reads, "exec")), *sys.argv[1:])
            if lock:
                write_json(scratch() / DURATIONS / f"{stage}.json", {"duration_s": time.monotonic() - begin})
    except HbnError as error:
        logging.error("%s", error)
        sys.exit(1)
    except KeyboardInterrupt:
        logging.error("interrupted; run the same command again, it goes on from what is finished")
        sys.exit(128 + signal.SIGINT)


@contextmanager
def alone(script: str) -> Generator[None]:
    """Wait until no other process of this checkout runs `script`; end this process when its `dvc` ends.

    A killed `dvc` leaves its script running as an orphan. The next `dvc repro` starts a second script or takes the
    results from the cache. The orphan must not write or delete files then, so it has to end with its `dvc`. Where
    DVC's shell stays between DVC and the script (as fish does), the orphan goes on, and only the lock keeps the two
    scripts apart. The operating system releases the lock when the process ends.
    """
    parent = os.getppid()
    # A parent in another process group means that DVC is gone and that another process has adopted this one: DVC and
    # its scripts are one group. (The exception is an adopting shell that is process 1 of a container. Parent 1 alone
    # proves nothing: DVC may be process 1 there.) torchrun gives each of its processes a group, so skip the check.
    if "RANK" not in os.environ and os.getpgid(parent) != os.getpgrp():
        raise HbnError("the dvc that started this process is gone")
    if sys.platform == "linux":  # immediately; end_with covers other systems and a parent that has already ended
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    end_with(parent)
    with open(script) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("waiting for an earlier run of %s to end (`pgrep -f %s` shows it)", script, script)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def view(everything: params.Params, reads: tuple[str, ...]) -> SimpleNamespace:
    """The parameters that `reads` names, by section or by dotted key."""
    visible = SimpleNamespace()
    for name in reads:
        section, _, key = name.partition(".")
        value = getattr(everything, section)
        if not key:
            setattr(visible, section, value)
            continue
        if not hasattr(visible, section):
            setattr(visible, section, SimpleNamespace())
        setattr(getattr(visible, section), key, getattr(value, key))
    return visible


def progress(work: Iterable | None = None, **about) -> tqdm:
    """A progress bar (arguments of tqdm); without a terminal, as in a queue or cluster, a log line every minute."""
    if sys.stderr.isatty():
        return tqdm(work, **about)
    limits = {"mininterval": LOG_EVERY_S, "maxinterval": LOG_EVERY_S, "delay": LOG_EVERY_S}
    line = "{n_fmt} of {total_fmt}, {rate_fmt}, {remaining} left"
    return tqdm(work, file=_LogFile(), bar_format=line, **limits, **about)


class _LogFile(io.StringIO):
    """Logs the text that is written to it, unless it is blank: tqdm writes blanks to clear a line."""

    def write(self, text: str) -> int:
        if text.strip():
            log.info(text.strip())
        return len(text)


def end_with(parent: int) -> None:
    """End this process soon after its parent process ends."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def checkout() -> Path:
    """The folder of the repository that the user works in.

    In `dvc exp run --temp` and in the queue, the current directory is a snapshot that is thrown
    away; DVC_ROOT names the original checkout.
    """
    return Path(os.environ.get("DVC_ROOT", "."))


def scratch() -> Path:
    """The folder for files that outlive a stage's run (see files.Store), shared by all experiments."""
    return checkout() / ".scratch"


def store(name: str) -> Store:
    """The scratch store of one kind of product."""
    return Store(scratch() / name)
