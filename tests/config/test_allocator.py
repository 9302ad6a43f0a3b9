"""The allocator: what is set when the package is imported, and what stays."""

import subprocess
import sys

import pytest

from motionexp.config import allocator

BLOCK = 2**28
# The size of the process in bytes after a large block was allocated, touched and freed.
SIZE_AFTER_FREE = f"""
import resource, sys
{{imported}}
block = bytearray({BLOCK})
del block
pages = int(open("/proc/self/statm").read().split()[1])
print(pages * resource.getpagesize())
"""


def size_after_free(imported: str) -> int:
    script = SIZE_AFTER_FREE.format(imported=imported)
    return int(
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout
    )


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_a_process_that_imports_the_package_keeps_freed_memory(monkeypatch):
    for name in allocator.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert size_after_free("") < BLOCK
    assert size_after_free("import motionexp") > BLOCK


@pytest.mark.parametrize("name", allocator.VARIABLES)
def test_what_the_user_set_stays(name, monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: pytest.fail("the allocator was touched"))
    assert not allocator.keep_freed_memory({name: "1"})


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())
    assert not allocator.keep_freed_memory({})
