"""Many cases: `python -m tests.fuzz [CASES [SECONDS [SEED]]]`; one case: `python -m tests.fuzz KIND SEED`."""

import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

from motionexp.jobs.waiting import loading_libraries  # after the number of threads

with loading_libraries():
    from tests.fuzz.guard import Guard
    from tests.fuzz.pool import KINDS, Result, run, run_case, schedule, warm


def last_line(result: Result) -> str:
    lines = result.text.strip().splitlines() or [""]
    places = [line.strip() for line in lines if "motionexp/" in line and line.strip().startswith("File ")]
    return f"{lines[-1][:200]}   {places[-1] if places else ''}"


def one(kind: str, seed: int) -> int:
    if kind not in KINDS:
        print(f"error: there is no kind {kind}; kinds are {', '.join(KINDS)}", file=sys.stderr)
        return 2
    if seed:
        warm([kind])
    with tempfile.TemporaryDirectory() as parent:
        result = run_case(Guard(), Path(parent), kind, seed)
    print(f"{kind} {seed}: {result.outcome} in {result.seconds:.2f} s\n{result.text}")
    return result.outcome == "finding"


def many(count: int, seconds: float, start: int) -> int:
    outcomes, times, begin = defaultdict[str, Counter[str]](Counter), Counter[str](), time.monotonic()
    findings: list[Result] = []
    for result in run(schedule(count, start), workers=2, seconds=seconds):
        outcomes[result.kind][result.outcome] += 1
        times[result.kind] += result.seconds  # type: ignore[assignment]
        if result.outcome == "finding":
            findings.append(result)
            print(f"FINDING {result.kind} {result.seed}: {last_line(result)}", flush=True)
    print("kind                 read refused finding seconds a case")
    for kind, counts in outcomes.items():
        mean = times[kind] / sum(counts.values())
        print(f"{kind:20} {counts['read']:4} {counts['refused']:7} {counts['finding']:7} {mean:8.3f}")
    cases = sum(sum(counts.values()) for counts in outcomes.values())
    print(f"{cases} cases in {time.monotonic() - begin:.0f} s, {len(findings)} findings")
    return min(1, len(findings))


if __name__ == "__main__":
    words = sys.argv[1:]
    if words and not words[0].isdigit():
        sys.exit(one(words[0], int(words[1]) if len(words) > 1 else 0))
    numbers = [*map(int, words), *(10_000, 600, 1)[len(words) :]]
    sys.exit(many(*numbers))
