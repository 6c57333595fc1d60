"""pool.py: the jobs of a run in spawned processes, which end with it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple, TypeVar

from forgemap.errors import DataError

Job = TypeVar("Job")
Answer = TypeVar("Answer")


class Crew(NamedTuple):
    """Processes that are prepared alike."""

    size: int
    set_up: Callable[..., None]
    """Called once in each, with the arguments."""
    arguments: tuple[Any, ...]


def in_processes(
    work: Callable[[Job], Answer], jobs: Sequence[Job], crews: Sequence[Crew], remedy: str
) -> Generator[tuple[Job, Answer], None, None]:
    """Each job with its answer, in the order in which they finish.

    Where the caller closes the generator or an exception comes, the processes are terminated, at
    any moment: what `work` writes must appear whole.

    Args:
        work: a function of a module, for the processes import it.
        jobs: job i goes to crew i % len(crews).
        crews: at least one.
        remedy: what needs less memory, as "use fewer workers".

    Raises:
        DataError: a process was ended from outside.
        Exception: what `work` raised.
    """
    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")  # a forked torch may hang, a forked CUDA fails
    pools = [ProcessPoolExecutor(crew.size, spawn, crew.set_up, crew.arguments) for crew in crews]
    futures: dict[Future[Answer], Job] = {
        pools[i % len(pools)].submit(work, job): job for i, job in enumerate(jobs)
    }
    try:
        while futures:
            for future in wait(futures, return_when=FIRST_COMPLETED).done:
                yield futures.pop(future), future.result()
    except BrokenProcessPool:
        raise DataError(
            f"A worker process was ended from outside, perhaps for want of memory: {remedy}; the "
            "same command goes on from here."
        ) from None
    except BaseException:
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
    finally:
        for pool in pools:
            pool.shutdown(wait=True, cancel_futures=True)
