"""A few seconds of `make fuzz`, in this process' children; and whether the guard finds what it must."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from motionexp.errors import InputError

ROOT = Path(__file__).parents[2]
CASES, SEED, SECONDS = 200, 1, 25


def test_no_damaged_file_gives_another_error_than_a_line_or_acts():
    """In a process of its own: forked cases must not get the threads and the modules of other tests."""
    command = [sys.executable, "-m", "tests.fuzz", str(CASES), str(SECONDS), str(SEED)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "0 findings" in done.stdout


ATTACKS = {
    "write": "open('../outside', 'w')",
    "link": "import os; os.symlink('..', 'up'); open('up/outside', 'w')",
    "remove": "import os; os.remove('../canary')",
    "rename": "import os; open('a', 'w').close(); os.rename('a', '../b')",
    "program": "import os; os.system('true')",
    "module": "import this",
    "network": "import socket; socket.create_connection(('localhost', 9))",
    "pickle": "import pickle; pickle.loads(pickle.dumps(print))",
    "swallowed": "import contextlib\nwith contextlib.suppress(BaseException): open('../outside', 'w')",
    "time": "while True: pass",
    "error": "1 / 0",
    "exit": "import os; os._exit(3)",
}
HARMLESS = {"write inside": "open('a', 'w').close()", "refusal": "raise InputError('a: wrong')"}


def test_the_guard_finds_every_kind_of_act(monkeypatch):
    from tests.fuzz import guard, pool

    monkeypatch.setattr(guard, "SECONDS", 0.2)
    cases = ATTACKS | HARMLESS
    kinds = {
        name: (lambda _, __, code=code: exec(code, {"InputError": InputError}), 1)
        for name, code in cases.items()
    }
    monkeypatch.setattr(pool, "KINDS", kinds)
    monkeypatch.setattr(pool, "warm", lambda _: None)
    results = {result.kind: result for result in pool.run([(name, 1) for name in cases], workers=2)}
    assert {name for name, result in results.items() if result.outcome == "finding"} == set(ATTACKS)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_case_is_its_kind_and_seed_alone(seed):
    from tests.fuzz.damage import Damage

    content = {"a": [1, {"b": "text"}], "c": None}
    one, two = (Damage("rows", seed) for _ in range(2))
    assert one.dumped(one.tree(content)) == two.dumped(two.tree(content))
    assert one.bytes(b"abc" * 50) == two.bytes(b"abc" * 50)
    assert Damage("rows", 0).tree(content) == content
