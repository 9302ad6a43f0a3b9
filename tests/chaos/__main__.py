"""A sweep that nothing can break: `python -m tests.chaos [KILLS [SEED]]` (`make chaos`).

It is killed at seeded random moments, meets a full disk, a folder that cannot be written, too many open files
and a process that hangs, runs twice and four times at once, and is started again each time. At the end every
row is there once, the tables are byte for byte those of an undisturbed sweep, and nothing is left over.
With less than 50 kills it is a short form: three cells, SIGKILL, and two sweeps at once.
"""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

from motionexp.jobs.waiting import loading_libraries  # after the number of threads

# So that no process looks for garbage among the libraries' objects, which takes longer than its cells.
with loading_libraries():
    from tests.chaos import sweep as chaos
    from tests.chaos.sweep import REFERENCES, SCORES_OF_A_CELL, STAGES, Event, Sweep
    from tests.support.tiny_models import save_tiny_pipeline

KILLS = 50
TAUS = tuple(range(0, 800, 100))
STEPS_OF_CELL = {"training": 3, "sampling": 1, "scoring": 1, "rows": 1, "files": 14, "publishing": 0}
LONGEST_DELAY = 0.05


def events(cells: int, seed: int) -> Iterator[Event]:
    """Seeded random moments of SIGKILL without end, each stage as often as the others."""
    draw = random.Random(seed)
    for stage in itertools.cycle(STAGES):
        # Within a few cells of the start, so that a sweep is not through after a few kills.
        most = max(1, min(cells, 6) * STEPS_OF_CELL[stage])
        yield Event(
            "SIGKILL", stage, draw.randint(1, most), draw.choice((0.0, draw.uniform(0, LONGEST_DELAY)))
        )


def run_whole(sweep: Sweep, parent: Path) -> Path:
    """The sweep that nothing disturbs."""
    root = sweep.prepared(parent / "whole")
    assert chaos.wait(chaos.start(sweep, root)) == 0, (root / "log").read_text()[-3000:]
    assert [*chaos.trained(root).values()] == [1] * REFERENCES * len(sweep.taus)
    assert len(chaos.scores_in(root)) == REFERENCES * len(sweep.taus) * SCORES_OF_A_CELL
    return root


def kill_and_start_again(sweep: Sweep, parent: Path, whole: Path, count: int, seed: int) -> str:
    """SIGKILL at many moments; a sweep that is through in spite of them is checked, and a new one begins."""
    root, through, stages = sweep.prepared(parent / "killed-0"), 0, Counter[str]()
    for event in events(len(sweep.taus) * REFERENCES, seed):
        # A sweep that is through before the moment comes is checked, and the event meets a new one.
        while (code := chaos.wait(chaos.start(sweep, root, event))) == 0:
            chaos.check(root, whole)
            through += 1
            root = sweep.prepared(parent / f"killed-{through}")
        assert code == -signal.SIGKILL, (event, code, (root / "log").read_text()[-3000:])
        stages[event.stage] += 1
        if stages.total() == count:
            break
    _finish(sweep, root, whole)
    return (
        f"{count} kills in {through + 1} sweeps ({', '.join(f'{n} {stage}' for stage, n in stages.items())})"
    )


def other_ends(sweep: Sweep, parent: Path, whole: Path, seed: int) -> str:
    """SIGTERM, Ctrl-C, a full disk, a folder that cannot be written, too many open files."""
    root, draw, codes = sweep.prepared(parent / "ends"), random.Random(seed), []
    for kind, expected in (*(("SIGTERM", 143), ("SIGINT", 130), ("size", 1), ("files", 1), ("folder", 1)),):
        stage = draw.choice(("training", "sampling", "scoring", "rows"))
        code = chaos.wait(chaos.start(sweep, root, Event(kind, stage)))
        chaos.writable(root)
        log = (root / "log").read_text()
        assert code == expected, (kind, stage, code, log[-3000:])
        assert "Traceback" not in log.rpartition("error:")[2], log[-3000:]
        codes.append(f"{kind} {code}")
    _finish(sweep, root, whole)
    return ", ".join(codes)


def hang(sweep: Sweep, parent: Path, whole: Path) -> str:
    """A process hangs with a cell: another one waits, and takes the cell over when the first is killed."""
    root = sweep.prepared(parent / "hanging")
    hanging = chaos.start(sweep, root, Event("SIGSTOP", "training", 5))
    os.waitpid(hanging, os.WUNTRACED)  # until it stands still
    second = chaos.start(sweep, root, log="second")
    end = time.monotonic() + 60
    (root / "second").touch()
    while "another process works on" not in (root / "second").read_text():
        assert time.monotonic() < end, "the second process does not say that it waits"
        time.sleep(0.02)
    os.kill(hanging, signal.SIGKILL)
    assert chaos.wait(second) == 0, (root / "second").read_text()[-3000:]
    os.waitpid(hanging, 0)
    _finish(sweep, root, whole)
    return "waited, then took over"


def full_disk(sweep: Sweep, parent: Path, whole: Path) -> str:
    """A file system that is full, after a quarter of the sweep's files, half and three quarters of them."""
    root = sweep.prepared(parent / "disk")
    outputs = root / "outputs"
    outputs.mkdir()
    needed = 512 * sum(path.stat().st_blocks for path in (whole / "outputs").rglob("*"))

    def mounted(share: float, *options: str) -> bool:
        size = ",".join([*options, f"size={int(share * needed)}"])
        command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", outputs]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if not mounted(0.25):
        return "left out: this user cannot mount a file system"
    try:
        for share in (0.25, 0.5, 0.75):
            assert mounted(share, "remount")
            code = chaos.wait(chaos.start(sweep, root))
            message = (root / "log").read_text().rpartition("error:")[2]
            assert code == 1, (share, code, message)
            assert "space" in message, message
            assert "Traceback" not in message, message
        assert mounted(4, "remount")
        _finish(sweep, root, whole)
    finally:
        subprocess.run(["umount", outputs], check=True)
    return "full three times"


def at_once(sweep: Sweep, parent: Path, whole: Path, count: int, kills: int, seed: int) -> str:
    """Several sweeps over the same cells at once, in other orders; some are killed and started again."""
    root, draw = sweep.prepared(parent / f"at-once-{count}-{kills}"), random.Random(seed)
    first = [
        Event("SIGKILL", draw.choice(STAGES[:4]), draw.randint(1, 5)) if number < kills else Event()
        for number in range(count)
    ]
    running = [chaos.start(sweep, root, event, order) for order, event in enumerate(first)]
    codes = [chaos.wait(process) for process in running]
    assert sorted(codes) == sorted([-signal.SIGKILL] * codes.count(-signal.SIGKILL) + [0] * codes.count(0)), (
        codes, (root / "log").read_text()[-3000:])  # fmt: skip
    if kills:
        _finish(sweep, root, whole)
    else:
        chaos.check(root, whole)
        fits = [*chaos.trained(root).values()]
        assert fits == [1] * REFERENCES * len(sweep.taus), "a cell was done twice"
    return f"{codes.count(-signal.SIGKILL)} killed"


def _finish(sweep: Sweep, root: Path, whole: Path) -> None:
    """The same command again, until it says that it is through; then nothing is left to do, or left over."""
    assert chaos.wait(chaos.start(sweep, root)) == 0, (root / "log").read_text()[-3000:]
    chaos.check(root, whole)
    before = chaos.trained(root, "begin")
    assert chaos.wait(chaos.start(sweep, root)) == 0
    assert chaos.trained(root, "begin") == before, "a finished cell was trained again"
    chaos.check(root, whole)


def main(arguments: list[str]) -> int:
    """Run everything; a failed assertion ends it with a traceback."""
    kills, seed = [*map(int, arguments), KILLS, 0][:2] if len(arguments) < 2 else map(int, arguments[:2])
    is_long = kills >= KILLS
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
    chaos.settle()
    with tempfile.TemporaryDirectory() as name:
        parent = Path(name)
        os.chmod(parent, 0o755)
        sweep = Sweep(save_tiny_pipeline(parent / "weights"), TAUS if is_long else TAUS[3:4])
        whole = run_whole(sweep, parent)
        parts = {
            "SIGKILL": lambda: kill_and_start_again(sweep, parent, whole, kills, seed),
            "two sweeps at once": lambda: at_once(sweep, parent, whole, 2, 0, seed),
        }
        if is_long:
            parts["other ends"] = lambda: other_ends(sweep, parent, whole, seed)
            parts["a full disk"] = lambda: full_disk(sweep, parent, whole)
            parts["a process that hangs"] = lambda: hang(sweep, parent, whole)
            parts["four sweeps at once"] = lambda: at_once(sweep, parent, whole, 4, 0, seed)
            for again in range(3):
                parts[f"four sweeps at once, two killed ({again})"] = lambda again=again: at_once(
                    sweep, parent, whole, 4, 2, seed + again
                )
        for part, work in parts.items():
            start = time.monotonic()
            print(f"{part}: {work()} ({time.monotonic() - start:.0f} s)", flush=True)
            for folder in parent.iterdir():
                if folder.name not in ("weights", "whole"):
                    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
