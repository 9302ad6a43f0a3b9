"""A Slurm cluster of one or two nodes on this machine, started by hand and stopped at the end."""

import getpass
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")
HIGH = "high"
"""A partition whose jobs take the nodes of `toy`."""
CONFIGURATION = """
ClusterName=toy
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CryptoType=crypto/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=2
SlurmdParameters=config_overrides
JobRequeue=1
AccountingStorageType=accounting_storage/none
KillWait=10
MinJobAge=300
SlurmctldTimeout=30
SlurmdTimeout=30
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{more}
{nodes}
PartitionName=toy Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace}
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=8000"


def missing() -> str:
    """What lacks for a cluster, in words; empty: nothing."""
    absent = [name for name in PROGRAMS if _program(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@dataclass
class Cluster:
    """A running cluster; `nodes` are their names."""

    folder: Path
    nodes: list[str]

    def slurm(self, *command: str, check: bool = True) -> str:
        """The output of one of Slurm's commands."""
        return subprocess.run(command, capture_output=True, text=True, check=check, timeout=60).stdout

    def states(self) -> dict[str, str]:
        """{job: state} of all that Slurm knows."""
        lines = self.slurm("squeue", "-h", "-t", "all", "-r", "-o", "%i|%T").split()
        return dict(line.split("|") for line in lines)

    def kill_node(self, name: str) -> None:
        """Kill a node's daemon with all that runs on it, as a power cut does, and tell the controller."""
        pids = {int((self.folder / f"slurmd.{name}.pid").read_text())}
        for pid in _processes_of(name):
            pids.add(pid)
            while _name(pid := _above(pid)) == "slurmstepd":
                pids.add(pid)
        # All stop first: a power cut leaves no time to report that a task has ended.
        for number, pid in itertools.product((signal.SIGSTOP, signal.SIGKILL), pids):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        self.slurm("scontrol", "update", f"nodename={name}", "state=down", "reason=killed")


def _processes_of(node: str) -> list[int]:
    """The processes of all tasks on a node."""
    pids = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"SLURMD_NODENAME={node}\0".encode() in (path / "environ").read_bytes():
                pids.append(int(path.name))
    return pids


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _above(pid: int) -> int:
    """The process that started a process; 0 if there is none any more."""
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def cluster(nodes: int = 1, cpus: int = 4, grace: int = 20, user_signal: bool = True) -> Iterator[Cluster]:
    """A cluster, as long as the context lasts, which Slurm's commands of this process find.

    Args:
        cpus: of each node, whatever the machine has.
        grace: seconds from the notice of a preemption to its end.
        user_signal: whether that notice is the signal that the job asked for; else SIGTERM alone.
    """
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # a short name, for the socket's path
    host, names = socket.gethostname().split(".")[0], [f"n{number + 1}" for number in range(nodes)]
    controller, *ports = _free_ports(nodes + 1)
    lines = [
        NODE.format(name=name, host=host, port=port, cpus=cpus)
        for name, port in zip(names, ports, strict=True)
    ]
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            folder=folder,
            host=host,
            port=controller,
            user=getpass.getuser(),
            nodes="\n".join(lines),
            grace=grace,
            more="SlurmctldParameters=preempt_send_user_signal" if user_signal else "",
        )
    )
    for name in ("state", "munge", *(f"spool/{name}" for name in names)):
        (folder / name).mkdir(parents=True, mode=0o755)
    folder.chmod(0o755)  # munged refuses a socket that not everybody can reach
    (folder / "munge").chmod(0o711)
    (folder / "munge" / "key").write_bytes(os.urandom(1024))
    (folder / "munge" / "key").chmod(0o600)
    before = dict(os.environ)
    os.environ |= {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": f"{before['PATH']}:/usr/sbin:/sbin"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1"}  # the nodes' names do not resolve
    running = Cluster(folder, names)
    try:
        munge = folder / "munge"
        options = [f"--{name}-file={munge / name}" for name in ("log", "pid", "seed")]
        subprocess.run(
            ["munged", f"--socket={munge}/socket", f"--key-file={munge}/key", *options], check=True
        )
        subprocess.run(["slurmctld"], check=True)
        for name in names:
            subprocess.run(["slurmd", "-N", name], check=True)
        _wait_for(lambda: running.slurm("sinfo", "-h", "-N", "-o", "%T", check=False).count("idle") >= nodes)
        yield running
    finally:
        running.slurm("scancel", "--full", "-u", getpass.getuser(), check=False)
        for name in names:
            running.slurm("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        with suppress(TimeoutError):
            _wait_for(lambda: not running.slurm("squeue", "-h", check=False).strip(), 30)
        for path in (*folder.glob("slurmd.*.pid"), folder / "slurmctld.pid", folder / "munge" / "pid"):
            with suppress(OSError, ValueError):
                os.kill(int(path.read_text()), signal.SIGTERM)
        time.sleep(0.5)
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.1)
