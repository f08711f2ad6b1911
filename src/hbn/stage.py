"""How every stage script runs: checked parameters, one log format, readable errors."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from hbn import params
from hbn.files import HbnError, Store


def run(main: Callable[..., None], reads: tuple[str, ...]) -> None:
    """Check all of params.yaml, then call `main(p, *arguments)`; exit with status 1 on HbnError.

    `p` holds only what `reads` names (a section such as 'pretrain' or a key such as 'data.url'),
    so that a stage cannot read a parameter that dvc.yaml does not declare for it. `p.exec` holds
    the settings that cannot change a result. Command-line arguments are passed on as text.
    """
    stage = os.environ.get("DVC_STAGE", Path(sys.argv[0]).stem)
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s {stage} %(levelname)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    try:
        main(view(params.load(), (*reads, "exec")), *sys.argv[1:])
    except HbnError as error:
        logging.error("%s", error)
        sys.exit(1)


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


def data_source(data: SimpleNamespace) -> str:
    """What metrics files name as the origin of their numbers, from data.preset and data.url."""
    url = data.url or params.PRESETS[data.preset]
    return "simulated" if url.startswith("simulated://") else url


def scratch() -> Path:
    """The folder for work that outlives a stage's run (see files.Store).

    In `dvc exp run --temp` and in the queue, the current directory is a snapshot that is thrown
    away, and DVC_ROOT names the original checkout: the scratch folder is shared with it.
    """
    return Path(os.environ.get("DVC_ROOT", ".")) / ".scratch"


def store(name: str) -> Store:
    """The scratch store of one kind of product."""
    return Store(scratch() / name)
