"""synth/pool.py: every job is answered once, and no process outlives its run."""

from __future__ import annotations

import multiprocessing
import os

import pytest

from forgemap.errors import DataError
from forgemap.synth.pool import Crew, in_processes

_name = ""  # of this process's crew


def set_up(name: str) -> None:
    global _name
    _name = name


def square(n: int) -> tuple[str, int]:
    if n < 0:
        raise ValueError(f"{n} is below 0")
    if n == 13:
        os._exit(1)
    return _name, n * n


def children() -> int:
    return len(multiprocessing.active_children())


@pytest.mark.slow  # two processes
def test_job_i_goes_to_crew_i_and_comes_with_its_answer() -> None:
    before = children()
    crews = [Crew(1, set_up, (name,)) for name in ("even", "odd")]
    answers = dict(in_processes(square, range(6), crews, ""))
    assert answers == {n: (("even", "odd")[n % 2], n * n) for n in range(6)}
    assert children() == before


def test_a_process_that_dies_is_one_sentence_that_says_what_helps() -> None:
    before = children()
    with pytest.raises(DataError, match=r"ended from outside.*: use fewer workers; the same"):
        list(in_processes(square, [1, 13], [Crew(1, set_up, ("",))], "use fewer workers"))
    assert children() == before


@pytest.mark.parametrize("how", ["an error in a job", "the caller stops"])
def test_what_ends_a_run_ends_its_processes(how: str) -> None:
    before = children()
    jobs = [*range(5), -1 if how == "an error in a job" else 5]
    answers = in_processes(square, jobs, [Crew(1, set_up, ("",))], "")
    if how == "an error in a job":
        with pytest.raises(ValueError, match="-1 is below 0"):
            list(answers)
    else:
        next(answers)
        answers.close()
    assert children() == before
