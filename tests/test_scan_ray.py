"""scan on Ray: several nodes give the rows of one machine, also when a worker is killed midway."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forgemap.errors import ForgemapError
from forgemap.scan import scan
from forgemap.scan.parts import part_files

from .scanning import leftovers, png, rows, settings, write_mix, write_tar

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without work of its own and three nodes of one CPU each, all on this machine."""
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    from ray.cluster_utils import Cluster

    found = Cluster()
    try:
        found.add_node(num_cpus=0, include_dashboard=False, object_store_memory=2**27)
        for _ in range(3):
            found.add_node(num_cpus=1, object_store_memory=2**27)
    except Exception as error:
        found.shutdown()
        if "timed out" not in str(error):
            raise
        pytest.skip(f"Ray's own limits for its start are too short for this machine now: {error}")
    yield found
    found.shutdown()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A folder, a table and eight shards: ten units."""
    root = tmp_path_factory.mktemp("in")
    for shard in range(7):
        members = {f"{n}.png": png(1000 * shard + n) for n in range(20)}
        write_tar(root / f"s{shard}.tar", members)
    return [*write_mix(root), str(root / "s{0..6}.tar")]


@pytest.fixture(scope="module")
def local(
    sources: list[str], model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """The rows of one machine."""
    out = tmp_path_factory.mktemp("local") / "out"
    scan(sources, out, settings(model_folder, masks=True), progress=False)
    return rows(out)


def test_a_cluster_that_loses_a_worker_gives_the_rows_of_one_machine(
    cluster: Any,
    sources: list[str],
    local: list[dict[str, Any]],
    model_folder: Path,
    tmp_path: Path,
) -> None:
    import psutil

    from forgemap.scan import run

    killed: list[int] = []
    real = run.write_part

    def then_kill(out: Path, part: Any) -> Path:
        """After the second part: the process of an actor is ended, as by the kernel."""
        path = real(out, part)
        if len(part_files(out)) >= 2 and not killed:
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if "Judge" in process.name() or any("Judge" in w for w in process.cmdline()):
                        process.kill()
                        killed.append(process.pid)
                        break
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "write_part", then_kill)
        chosen = settings(model_folder, masks=True, actors=(2, 3))
        out = tmp_path / "out"
        scan(sources, out, chosen, cluster=f"ray:{cluster.address}", progress=False)
    assert killed
    assert rows(out) == local
    assert leftovers(out) == []


def test_a_run_may_begin_on_one_machine_and_end_on_a_cluster(
    cluster: Any,
    sources: list[str],
    local: list[dict[str, Any]],
    model_folder: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    chosen = settings(model_folder, masks=True)
    scan(sources, out, chosen, progress=False)
    for path in part_files(out)[3::2]:  # as if it had been stopped, in the midst of units
        path.unlink()
    scan(sources, out, chosen, cluster=f"ray:{cluster.address}", progress=False)
    assert rows(out) == local
    # What one machine has judged, actors pass over, and a part without rows is a part.
    known = {"cluster": f"ray:{cluster.address}", "since": out, "progress": False}
    outcome = scan(sources[3:], tmp_path / "since", chosen, **known)
    assert (outcome.known, outcome.judged, outcome.unreadable) == (140, 0, 0)


def test_what_an_actor_cannot_do_is_one_sentence(
    cluster: Any, sources: list[str], model_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ForgemapError, match="is unknown: use ray or ray:ADDRESS"):
        scan(sources, tmp_path / "a", settings(model_folder), cluster="spark", progress=False)
    with pytest.raises(ForgemapError, match=r"Ray cluster at .* cannot be used"):
        scan(
            sources,
            tmp_path / "b",
            settings(model_folder),
            cluster="ray:no-such-scheme://x",
            progress=False,
        )
