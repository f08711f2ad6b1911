"""Recordings spread over this machine's processors, or over the machines of a Dask cluster."""

import logging
import os
import pickle
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from hbn import params
from hbn.files import HbnError
from hbn.stage import in_parallel

log = logging.getLogger(__name__)
TIMEOUT_S = 10  # for the scheduler's first answer


def in_order(jobs: Iterable[tuple], execution: params.Exec) -> Iterator:
    """Results of joblib's delayed `jobs`, in their order.

    They run in exec.workers processes or, with exec.dask_scheduler, on whatever workers that scheduler has
    or gets: these must see this folder under the same name, for results are files in it. What a worker had
    under way when it was lost is done again by another.
    """
    if execution.dask_scheduler:
        return _on_cluster(jobs, execution.dask_scheduler)
    return in_parallel(execution.workers, return_as="generator")(jobs)


def _on_cluster(jobs: Iterable[tuple], address: str) -> Iterator:
    try:
        import cloudpickle
        from distributed import Client, KilledWorker, WorkerPlugin
    except ModuleNotFoundError:
        raise HbnError(
            "exec.dask_scheduler needs Dask: pip install -r requirements-dask.txt, or set it to an empty text"
        ) from None
    here, library = os.getcwd(), str(Path(__file__).parents[1])

    # Both are local, so that they travel as code: a worker has none of this library before the first is set up.
    class Workplace(WorkerPlugin):
        name = "hbn"

        def setup(self, worker) -> None:
            os.chdir(here)
            sys.path[:] = [library, *(path for path in sys.path if path != library)]
            for name in [name for name in sys.modules if name.partition(".")[0] == "hbn"]:
                del sys.modules[name]  # an earlier run's: the code may have changed since

    def call(job: bytes):  # packed, for the scheduler unpacks what it passes on, and has none of this library
        function, positional, named = pickle.loads(job)
        return function(*positional, **named)

    try:
        client = Client(address, timeout=TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise HbnError(f"exec.dask_scheduler: no scheduler answers at {address!r} ({error})") from None
    with client:
        client.register_plugin(Workplace())
        log.info("%d workers of %s", len(client.scheduler_info()["workers"]), address)
        try:
            for future in [client.submit(call, cloudpickle.dumps(job), pure=False) for job in jobs]:
                yield future.result()
        except KilledWorker as error:
            raise HbnError(f"exec.dask_scheduler: {error}; look at the workers' memory and logs") from None
