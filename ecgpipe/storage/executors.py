"""Where parts are done: in this process, on processes of this machine, or on a Dask cluster.

The bytes are the same everywhere. A worker process that dies is replaced and its part done again,
and a part that fails with an :class:`EcgpipeError` does not take the others with it.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context, util
from multiprocessing.connection import Connection
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from ..errors import Damaged, EcgpipeError, Unreachable
from ..progress import say

J = TypeVar("J")
R = TypeVar("R")
Outcomes = Generator[tuple[str, R | EcgpipeError], None, None]

LOCAL = "local"  # in place of an address: a Dask cluster of this machine
ATTEMPTS = 3  # at a part whose worker process dies; Dask has a setting of its own, allowed-failures
IN_A_ROW = 20  # parts that fail one after another: then it is not the parts, and nothing goes on
AHEAD = 4  # parts that are sent to each thread of a Dask cluster before their turn
PATIENCE = 60.0  # s to wait for a scheduler, or for the first or another worker
IGNORE_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"  # run in a worker
# Workers with other versions of these would write other bytes than the recipe says.
DECISIVE = ("ecgpipe", "numpy", "scipy", "zarr", "numcodecs", "pcodec", "soxr", "sleepecg", "wfdb")


def run(
    call: Callable[[str, J], R], jobs: Mapping[str, J], workers: int, dask: str | None = None
) -> Generator[tuple[str, R], None, None]:
    """Do every job, in whatever order they are done.

    Parameters
    ----------
    call
        Makes one part, given its name and job. It and the jobs can be pickled, name no relative
        path, and calling it twice is as good as calling it once, even at the same time.
    jobs
        By the name of the part.
    workers
        Processes; 1 works in this one.
    dask
        Address of a Dask scheduler, such as ``tcp://host:8786``, whose workers see the same files;
        or ``local`` for a cluster on this machine with ``workers`` processes.

    Yields
    ------
    tuple
        The name of a part, and what ``call`` gave.

    Raises
    ------
    EcgpipeError
        At the end, naming the parts that could not be made; at once, if the disk is full or the
        like, if too many parts fail in a row, or if there is no scheduler or no worker.
    Damaged
        At the end, if what one of them is made from is damaged.
    Unreachable
        At the end, if all of them failed for remote files that could not be read.
    """
    outcomes: Outcomes[R]
    if dask:
        outcomes = _on_dask(call, jobs, workers, dask)
    elif min(workers, len(jobs)) > 1:
        outcomes = _on_processes(call, jobs, workers)
    else:
        outcomes = ((name, _outcome(name, partial(call, name, jobs[name]))) for name in jobs)
    failed: dict[str, EcgpipeError] = {}
    in_a_row = 0
    with closing(outcomes):
        for name, outcome in outcomes:
            if not isinstance(outcome, EcgpipeError):
                in_a_row = 0
                yield name, outcome
                continue
            failed[name] = outcome
            in_a_row += 1
            if in_a_row == IN_A_ROW:
                break
    if failed:
        kinds = {type(error) for error in failed.values()}
        # The error's class decides the exit code, which says whether to repair or to try again.
        kind = (
            Damaged if Damaged in kinds else Unreachable if kinds == {Unreachable} else EcgpipeError
        )
        raise kind(_sentence(failed, len(jobs), in_a_row == IN_A_ROW))


def _sentence(failed: Mapping[str, EcgpipeError], total: int, gave_up: bool) -> str:
    names = sorted(failed)
    listed = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    first, reason = next(iter(failed.items()))
    rest = "after so many in a row nothing more was tried" if gave_up else "the others are done"
    return (
        f"{len(names)} of {total} parts could not be made ({listed}); {first}: {reason}; "
        f"{rest}, and the same command continues"
    )


def _outcome(name: str, result: Callable[[], R]) -> R | EcgpipeError:
    """What a part gave, or why there is none."""
    try:
        return result()
    except EcgpipeError as error:
        return error
    except OSError as error:  # a full disk, a lost mount: no other part would fare better
        raise EcgpipeError(
            f"part {name}: {error}; mend that and start the same command again to continue"
        ) from error


def _killed(times: int) -> EcgpipeError:
    return EcgpipeError(
        f"its worker process died {times} times; if memory is short, use fewer --workers"
    )


def _on_processes(call: Callable[[str, J], R], jobs: Mapping[str, J], workers: int) -> Outcomes[R]:
    """One pool for each worker: if a worker dies, its part is known and the others continue."""
    context = get_context("spawn")
    connection, end = context.Pipe(duplex=False)

    def new_pool() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, context, exit_with_parent, (connection,))

    waiting, deaths = deque(jobs), Counter[str]()
    free = [new_pool() for _ in range(min(workers, len(jobs)))]
    doing: dict[Future[R], tuple[ProcessPoolExecutor, str]] = {}
    try:
        while waiting or doing:
            while waiting and free:
                pool, name = free.pop(), waiting.popleft()
                doing[pool.submit(call, name, jobs[name])] = pool, name
            for future in wait(doing, return_when=FIRST_COMPLETED).done:
                pool, name = doing.pop(future)
                try:
                    outcome = _outcome(name, future.result)
                except BrokenProcessPool:
                    pool.shutdown()
                    pool = new_pool()
                    deaths[name] += 1
                    if deaths[name] < ATTEMPTS:
                        say(f"{name}: its worker process died; another one does it again")
                        waiting.append(name)
                        free.append(pool)
                        continue
                    outcome = _killed(ATTEMPTS)
                free.append(pool)
                yield name, outcome
        for pool in free:  # idle workers; the others are ended below
            pool.shutdown()
    finally:
        end.close()
        for pool in [*free, *(pool for pool, _ in doing.values())]:
            pool.shutdown()
        connection.close()


def exit_with_parent(connection: Connection) -> None:
    """End this worker when its parent closes the connection or has ended.

    An orphan could write at the same time as the next run. The parent handles Ctrl-C.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        connection.poll(None)
        # Semaphores that are not released are reported as leaked.
        util._run_finalizers(0)  # type: ignore[attr-defined]
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _on_dask(
    call: Callable[[str, J], R], jobs: Mapping[str, J], workers: int, address: str
) -> Outcomes[R]:
    try:
        import distributed
    except ImportError:
        raise EcgpipeError(
            f"--dask {address}: needs another package; run pip install 'ecgpipe[dask]'"
        ) from None
    same = partial(_with_the_same, {name: version(name) for name in DECISIVE}, call)
    with _connected(address, min(workers, len(jobs))) as client:
        waiting = deque(jobs)
        doing: dict[Any, str] = {}
        saw_worker = time.monotonic()
        while waiting or doing:
            threads = sum(client.nthreads().values())
            if threads:
                saw_worker = time.monotonic()
            elif time.monotonic() - saw_worker > PATIENCE:
                raise EcgpipeError(
                    f"--dask {address}: no worker in {PATIENCE:.0f} s; start some with "
                    f"`dask worker {address}`, then the same command continues"
                )
            while waiting and len(doing) < AHEAD * threads:
                name = waiting.popleft()
                doing[client.submit(same, name, jobs[name], pure=False)] = name
            if not doing:
                time.sleep(0.2)
                continue
            try:
                done = distributed.wait(list(doing), 1.0, "FIRST_COMPLETED").done
            except TimeoutError:
                continue  # to look after the workers
            for future in done:
                name = doing.pop(future)
                try:
                    outcome = _outcome(name, future.result)
                except distributed.scheduler.KilledWorker as error:
                    outcome = _killed(error.allowed_failures + 1)
                yield name, outcome


@contextmanager
def _connected(address: str, workers: int) -> Iterator[Any]:
    """A client of the scheduler; whatever happens to their connection is one clear error."""
    from distributed import Client, LocalCluster

    # Its log would only repeat, with a stack trace, what is raised here.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        cluster: Any = address
        if address == LOCAL:
            # A worker holds a record at a time: limits of memory would only make Dask pause it.
            cluster = LocalCluster(
                n_workers=workers,
                local_directory=stack.enter_context(TemporaryDirectory(prefix="ecgpipe-")),
                threads_per_worker=1,
                memory_limit=None,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.ERROR,
                preload=IGNORE_CTRL_C,
            )
            stack.enter_context(cluster)
        try:
            client = stack.enter_context(Client(cluster, timeout=PATIENCE))
        except (OSError, ValueError) as error:
            raise EcgpipeError(
                f"--dask {address}: no scheduler answers there ({error}); start one with "
                "`dask scheduler`, or say local"
            ) from None
        try:
            yield client
        except (OSError, CancelledError):
            raise EcgpipeError(
                f"--dask {address}: lost the scheduler; once it is up, the same command continues"
            ) from None


def _with_the_same(
    versions: Mapping[str, str], call: Callable[[str, J], R], name: str, job: J
) -> R:
    """The call, refused on a worker whose libraries would write other bytes."""
    other = [f"{key} {version(key)}" for key in versions if version(key) != versions[key]]
    if other:
        raise EcgpipeError(
            f"a worker on {os.uname().nodename} has {', '.join(other)} where "
            f"{', '.join(f'{k.split()[0]} {versions[k.split()[0]]}' for k in other)} is wanted; "
            "install the same versions on all workers"
        )
    return call(name, job)
