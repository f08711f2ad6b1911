"""Parallel work: in threads (work that waits), in processes (work that computes) or on a Dask cluster."""

import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, TypeVar

from joblib import Parallel, delayed

from hbn import params
from hbn.files import HbnError, code_digest
from hbn.stage import end_with

log = logging.getLogger(__name__)
TIMEOUT_S = 10  # for the scheduler's first answer
Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Iterable[Item], n_threads: int) -> list[Result]:
    """Results of `work` for each item, in any order; no item is begun after an error."""
    remaining = list(items)
    queue = iter(remaining)  # all threads take their next item from it

    def empty_queue(_thread: int) -> list[Result]:
        try:
            return [work(item) for item in queue]
        finally:
            remaining.clear()  # after an error, the other threads end when their present item is done

    with ThreadPool(n_threads) as pool:
        return list(chain.from_iterable(pool.imap_unordered(empty_queue, range(n_threads))))


def in_processes(jobs: Iterable[tuple], n_workers: int, in_order: bool = True) -> Iterator[Any]:
    """Results of `jobs`, each a function and its arguments, in the order of the jobs or as they are done.

    The worker processes end when this process is killed. Otherwise they would finish their jobs and write files
    during the next run.
    """
    return_as = "generator" if in_order else "generator_unordered"
    parallel = Parallel(n_workers, "loky", return_as, initializer=end_with, initargs=(os.getpid(),))
    return parallel(delayed(function)(*arguments) for function, *arguments in jobs)


def in_order(jobs: Iterable[tuple], execution: params.Exec) -> Iterator[Any]:
    """Results of `jobs`, each a function and its arguments, in the order of the jobs.

    They run in exec.workers processes or, with exec.dask_scheduler, on the workers of that scheduler, which may join
    at any time. Each worker must see this folder under the same name, because jobs write their results into it. If a
    worker is lost, another one repeats its job.
    """
    if execution.dask_scheduler:
        return _on_cluster(jobs, execution.dask_scheduler)
    return in_processes(jobs, execution.workers)


def _on_cluster(jobs: Iterable[tuple], address: str) -> Iterator:
    try:
        import cloudpickle
        from distributed import Client, KilledWorker
    except ModuleNotFoundError:
        raise HbnError(
            "exec.dask_scheduler needs Dask: pip install -r requirements-dask.txt, or set it to an empty text"
        ) from None
    here, library = os.getcwd(), Path(__file__).parents[1]
    code = str(library), code_digest()

    # cloudpickle sends `call` by value, and the job is bytes, because scheduler and new workers lack this library.
    def call(job: bytes):
        if getattr(sys, "hbn_code", None) != code:  # a new worker, or one with code of another checkout or run
            setattr(sys, "hbn_code", code)  # noqa: B010
            sys.path[:] = [code[0], *(path for path in sys.path if path != code[0])]
            for name in [name for name in sys.modules if name.partition(".")[0] == "hbn"]:
                del sys.modules[name]
        os.chdir(here)
        function, *arguments = pickle.loads(job)
        return function(*arguments)

    try:
        client = Client(address, timeout=TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise HbnError(f"exec.dask_scheduler: no scheduler answers at {address!r} ({error})") from None
    with client:
        threads = client.nthreads().values()
        if any(n > 1 for n in threads):  # jobs of two threads would change each other's folder and code
            raise HbnError(f"the workers of {address} should have one thread each (`dask worker --nthreads 1`)")
        log.info("%d workers of %s", len(threads), address)
        try:
            for future in [client.submit(call, cloudpickle.dumps(job), pure=False) for job in jobs]:
                yield future.result()
        except KilledWorker as error:
            raise HbnError(f"exec.dask_scheduler: {error}; look at the workers' memory and logs") from None
