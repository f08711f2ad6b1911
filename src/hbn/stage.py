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
DURATIONS = "durations"  # folder in the scratch store: how long each stage took here, for the page
LOG_EVERY_S = 60.0  # of long work without a terminal
PR_SET_PDEATHSIG = 1  # of the Linux call prctl: the signal to get when the parent ends


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
        # The other processes of torchrun work together with the first, which takes the lock.
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
    """End when the `dvc` that started this ends, and wait until no other process of this checkout runs `script`.

    A killed `dvc` would leave its script running. The next `dvc repro` starts another beside it, or takes the
    results from its cache without any: the orphan must neither write nor delete files then. (Where DVC's shell
    stays between the two, as fish does, the orphan stays, and only the lock keeps scripts apart. The lock is the
    system's own, so it ends with its process.)
    """
    parent = os.getppid()
    # DVC and what it starts are one process group; who adopts orphans is in another one (but for a shell that is
    # process 1 of a container). That it is process 1 would say nothing: in a container, DVC may be that.
    # Between DVC and its processes, torchrun stands, which makes a group for each.
    if "RANK" not in os.environ and os.getpgid(parent) != os.getpgrp():
        raise HbnError("the dvc that started this is gone")
    if sys.platform == "linux":  # at once; elsewhere, and for what has ended by now, within a moment
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
    """The part of the parameters that the dotted names in `reads` cover."""
    seen = SimpleNamespace()
    for name in reads:
        section, _, key = name.partition(".")
        value = getattr(everything, section)
        if not key:
            setattr(seen, section, value)
            continue
        if not hasattr(seen, section):
            setattr(seen, section, SimpleNamespace())
        setattr(getattr(seen, section), key, getattr(value, key))
    return seen


def progress(work: Iterable | None = None, **about) -> tqdm:
    """A progress bar (arguments as of tqdm); where there is no terminal, in the log of a queue or cluster, a line a
    minute."""
    if sys.stderr.isatty():
        return tqdm(work, **about)
    limits = {"mininterval": LOG_EVERY_S, "maxinterval": LOG_EVERY_S, "delay": LOG_EVERY_S}
    line = "{n_fmt} of {total_fmt}, {rate_fmt}, {remaining} left"
    return tqdm(work, file=_LogFile(), bar_format=line, **limits, **about)


class _LogFile(io.StringIO):
    """Logs what is written to it, without the blanks that clear a line."""

    def write(self, text: str) -> int:
        if text.strip():
            log.info(text.strip())
        return len(text)


def end_with(parent: int) -> None:
    """End this process a moment after its parent's end."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def checkout() -> Path:
    """The folder of the repository that the user works in.

    In `dvc exp run --temp` and in the queue, the current directory is a snapshot that is thrown
    away, and DVC_ROOT names the original checkout.
    """
    return Path(os.environ.get("DVC_ROOT", "."))


def scratch() -> Path:
    """The folder for work that outlives a stage's run (see files.Store), shared by all experiments."""
    return checkout() / ".scratch"


def store(name: str) -> Store:
    """The scratch store of one kind of product."""
    return Store(scratch() / name)
