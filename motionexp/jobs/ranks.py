"""The processes that share a job: started here, or found started by srun or torchrun. Imports no torch."""

import itertools
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tqdm import tqdm  # type: ignore[import-untyped]

from motionexp.config.ranks import Rank, rank_of
from motionexp.config.schema import JobConfig
from motionexp.config.threads import COUNTS, available_cores
from motionexp.errors import DAMAGE, Stopped, stoppable

if TYPE_CHECKING:
    from torch.distributed import TCPStore

GRACE_SECONDS = 60
"""For the other ranks to save and end once one of them has ended; then they are killed."""
HEARING_SECONDS = 5
"""For the reports of the other ranks once one has failed."""
Result = TypeVar("Result")


class RankLost(ConnectionError):
    """A rank has ended, and this one waited for it: the lost rank's own error is the cause."""


class _Process(NamedTuple):
    process: BaseProcess
    reports: Connection


def on_ranks(
    cfg: JobConfig, work: Callable[..., Result], *arguments: Any
) -> tuple[Result | None, BaseException | None]:
    """Do a job's work in processes of its own, one a device.

    The processes are new ones: the command is not run again, so that a sweep goes on in this process alone.
    If a rank fails, or this process gets a signal, all ranks end: first they may save what they have.

    Args:
        cfg: checked settings; `trainer.num_nodes` is 1.
        work: a function of a module, which each rank calls with the settings and `arguments`.

    Returns:
        What rank 0 returned, and the error of the rank that failed first: `RankLost` if it was killed.

    Raises:
        KeyboardInterrupt, Stopped: of this process.
    """
    ranks = _started(cfg, work, arguments)
    try:
        reports = _first_reports(ranks)
    except (KeyboardInterrupt, Stopped) as stop:
        signum = stop.signum if isinstance(stop, Stopped) else signal.SIGINT
        _signal(ranks, signum)
        _end(ranks)
        raise
    except BaseException:
        _signal(ranks, signal.SIGKILL)
        _end(ranks)
        raise
    errors = [error for error, _ in reports.values() if error is not None]
    if errors:
        _signal(ranks, signal.SIGTERM)
        # Rank 0 may have finished other cells. What it sends has to be read before it can end.
        if 0 not in reports and ranks[0].reports.poll(GRACE_SECONDS):
            reports[0] = _report(0, ranks[0])
    _end(ranks)
    # A rank that waited for another one says less than that one.
    first = next((error for error in errors if not isinstance(error, RankLost)), next(iter(errors), None))
    return reports.get(0, (first, None))[1], first


Report = tuple[BaseException | None, Any]
"""How a rank ended: its error, or what it returned."""


def _started(cfg: JobConfig, work: Callable[..., Any], arguments: Sequence[Any]) -> list[_Process]:
    context = multiprocessing.get_context("spawn")
    size, port = cfg.trainer.ranks, _free_port()
    ranks = []
    for number in range(size):
        reports, sender = context.Pipe(duplex=False)
        of_rank = (Rank(number, size, number), port, sender, work, cfg, *arguments)
        process = context.Process(target=_run, args=of_rank, name=f"rank {number}")
        process.start()
        sender.close()  # so that the end of the process is the end of its reports
        ranks.append(_Process(process, reports))
    return ranks


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _first_reports(ranks: Sequence[_Process]) -> dict[int, Report]:
    """The reports of the ranks by their numbers: of all, or, where one fails, of those that ended by then."""
    reports: dict[int, Report] = {}
    while len(reports) < len(ranks) and not any(error for error, _ in reports.values()):
        ready = wait([rank.reports for number, rank in enumerate(ranks) if number not in reports])
        for number, rank in enumerate(ranks):
            if rank.reports in ready:
                reports[number] = _report(number, rank)
    # A rank that waited for the failed one may have been heard first.
    deadline = time.monotonic() + HEARING_SECONDS
    while any(error for error, _ in reports.values()) and len(reports) < len(ranks):
        ready = wait(
            [rank.reports for number, rank in enumerate(ranks) if number not in reports],
            max(0, deadline - time.monotonic()),
        )
        if not ready:
            break
        reports |= {
            number: _report(number, rank) for number, rank in enumerate(ranks) if rank.reports in ready
        }
    return reports


def _report(number: int, rank: _Process) -> Report:
    try:
        report: Report = pickle.loads(rank.reports.recv_bytes())
        return report
    except EOFError:
        rank.process.join()
        code = rank.process.exitcode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        hint = ": main memory may have been too small" if code == -signal.SIGKILL else ""
        return RankLost(f"rank {number} {how}{hint}; the same command continues"), None


def _signal(ranks: Sequence[_Process], signum: int) -> None:
    """Send a signal to all ranks that still run."""
    for rank in ranks:
        with suppress(ProcessLookupError):
            if rank.process.is_alive() and rank.process.pid is not None:
                os.kill(rank.process.pid, signum)


def _end(ranks: Sequence[_Process]) -> None:
    """Wait for the end of all ranks; kill those that take too long."""
    deadline = time.monotonic() + GRACE_SECONDS
    for rank in ranks:
        rank.process.join(max(0, deadline - time.monotonic()))
    for rank in ranks:
        rank.process.kill()
        rank.process.join()


def _run(
    rank: Rank, port: int, reports: Connection, work: Callable[..., Any], cfg: JobConfig, *arguments: Any
) -> None:
    """The life of a rank that `on_ranks` has started."""
    # A terminal sends Ctrl-C to all processes of a group: this one gets it from the process that started it.
    os.setpgid(0, 0)
    _die_with_parent()
    # Without a lock for several processes, which a killed rank would leave behind.
    tqdm.set_lock(threading.RLock())
    os.environ |= {
        **{"RANK": f"{rank.number}", "WORLD_SIZE": f"{rank.size}", "LOCAL_RANK": f"{rank.on_node}"},
        **{"LOCAL_WORLD_SIZE": f"{rank.size}", "NODE_RANK": "0"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"},
    }
    if sys.platform == "linux":  # whose name the machine itself may not know
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # The threads of one process, divided: ranks that wait for each other's threads are slower than one.
    for name in COUNTS:
        count = os.environ.get(name, "") or str(available_cores())
        os.environ[name] = str(max(1, int(count) // rank.size)) if count.isdecimal() else count
    with stoppable():
        try:
            if rank.number > 0:
                silence()
            report: Report = None, work(cfg, *arguments)
        except BaseException as error:
            # Raised again where the ranks were started: this process prints nothing of it.
            reports.send_bytes(pickle.dumps((_portable(error), None)))
            raise SystemExit(1) from error
    reports.send_bytes(pickle.dumps(report))


def silence() -> None:
    """Print nothing from now on: rank 0 speaks for all."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _die_with_parent() -> None:
    """End this process when the one that started it is gone, however that ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _portable(error: BaseException) -> BaseException:
    """The error as another process can raise it, with the traceback of this one as a note."""
    try:
        copy: BaseException = pickle.loads(pickle.dumps(error))
    except (*DAMAGE, pickle.PickleError) as reason:  # an error of any library has arguments of any kind
        copy = RuntimeError(f"{type(error).__name__}: {error} (not passed on whole: {reason})")
    copy.add_note("".join(traceback.format_exception(error)))
    return copy


@contextmanager
def joined(cfg: JobConfig) -> Iterator[None]:
    """Connect this rank of a job with the others; without others nothing happens.

    Raises:
        RankLost: within the block, where another rank has ended.
    """
    rank = rank_of(cfg.trainer)
    if rank is None:
        yield
        return
    import torch
    from torch import distributed

    before = dict(os.environ)
    _settle_environment(rank, cfg.trainer.devices)
    on_gpu = cfg.device != "cpu" and torch.cuda.is_available()
    if on_gpu and rank.on_node < torch.cuda.device_count():  # else `plan_job` says how many there are
        torch.cuda.set_device(rank.on_node)
    # A sweep has a group for each job. A rank that is ahead must not read the addresses of the group before.
    store = distributed.PrefixStore(f"job {next(JOINED)}", _store(rank))
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=store,
        rank=rank.number,
        world_size=rank.size,
        timeout=timedelta(days=30),  # rank 0 may wait so long for a process that works on the same cell
    )
    try:
        with clear_rank_errors():
            yield
    finally:
        distributed.destroy_process_group()
        # Lightning forgets how many ranks there are at the end of a training; a sweep has further jobs.
        os.environ.clear()
        os.environ.update(before)


JOINED = itertools.count()
"""Counts the jobs of this process on several ranks."""


@cache
def _store(rank: Rank) -> "TCPStore":
    """Where the ranks find each other: as long as the process lives, for a port is not free again at once."""
    from torch.distributed import TCPStore

    is_server = rank.number == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(address, port, rank.size, is_server, timeout=timedelta(minutes=30))


LOST = "another rank has ended, and this one waited for it"
LOST_TEXTS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL")
"""In the errors of torch where another process of a group is gone."""


@contextmanager
def clear_rank_errors() -> Iterator[None]:
    """Raise RankLost in place of torch's errors about a process that is gone."""
    try:
        yield
    except RuntimeError as error:
        if any(text in str(error) for text in LOST_TEXTS):
            raise RankLost(LOST) from error
        raise


def _settle_environment(rank: Rank, on_node: int) -> None:
    """Give torch the names of torchrun for what Slurm has set."""
    os.environ["RANK"], os.environ["WORLD_SIZE"] = f"{rank.number}", f"{rank.size}"
    os.environ["LOCAL_RANK"], os.environ["LOCAL_WORLD_SIZE"] = f"{rank.on_node}", f"{on_node}"
    os.environ["NODE_RANK"] = f"{rank.number // on_node}"
    if not {"MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
        from lightning.fabric.plugins.environments import SLURMEnvironment

        slurm = SLURMEnvironment(auto_requeue=False)
        os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = slurm.main_address, str(slurm.main_port)
