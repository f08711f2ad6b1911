"""Work side by side: in threads where it waits, in processes where it computes, or on a Dask cluster."""

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
    """Results of `work` for each item, in any order; after an error, no other item is begun."""
    left = list(items)
    queue = iter(left)  # of which each thread takes the next

    def several(_number: int) -> list[Result]:
        try:
            return [work(item) for item in queue]
        finally:
            left.clear()  # after an error, the others end with what they have under way

    with ThreadPool(n_threads) as pool:
        return list(chain.from_iterable(pool.imap_unordered(several, range(n_threads))))


def in_processes(jobs: Iterable[tuple], n_workers: int, in_order: bool = True) -> Iterator[Any]:
    """Results of `jobs`, each a function and its arguments, in their order or as they come.

    The worker processes end when this process is killed: left to themselves they idle for minutes, and write beside
    the next run what was under way.
    """
    return_as = "generator" if in_order else "generator_unordered"
    parallel = Parallel(n_workers, "loky", return_as, initializer=end_with, initargs=(os.getpid(),))
    return parallel(delayed(function)(*arguments) for function, *arguments in jobs)


def in_order(jobs: Iterable[tuple], execution: params.Exec) -> Iterator[Any]:
    """Results of `jobs`, each a function and its arguments, in their order.

    They run in exec.workers processes or, with exec.dask_scheduler, on whatever workers that scheduler has
    or gets: these must see this folder under the same name, for results are files in it. What a worker had
    under way when it was lost is done again by another.
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

    # It travels as code, and the job packed: neither the scheduler nor a new worker has this library.
    def call(job: bytes):
        if getattr(sys, "hbn_code", None) != code:  # a new worker, or one that another checkout or an earlier run used
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
        if any(n > 1 for n in threads):  # jobs of several runs would change each other's folder and code
            raise HbnError(f"the workers of {address} should have one thread each (`dask worker --nthreads 1`)")
        log.info("%d workers of %s", len(threads), address)
        try:
            for future in [client.submit(call, cloudpickle.dumps(job), pure=False) for job in jobs]:
                yield future.result()
        except KilledWorker as error:
            raise HbnError(f"exec.dask_scheduler: {error}; look at the workers' memory and logs") from None
