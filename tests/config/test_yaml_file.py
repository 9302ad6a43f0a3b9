"""The reader of YAML files from elsewhere: equal to OmegaConf's, bounded, and without code."""

import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from motionexp.config.options import CONF, EXPERIMENTS
from motionexp.config.yaml_file import MOST_LEVELS, read_yaml
from motionexp.errors import InputError

NAMES = "abcdefgh"


@pytest.mark.parametrize(
    "path", [EXPERIMENTS / "tau.yaml", CONF / "model" / "tiny_latte.yaml"], ids=lambda p: p.stem
)
def test_it_reads_what_omegaconf_reads(path):
    assert read_yaml(path) == OmegaConf.to_container(OmegaConf.load(path), resolve=False)


def test_plain_values_aliases_and_merges(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text('a: &x {k: 1e-4, d: 2020-01-01, t: "${b}, [c]"}\nb: [*x, *x]\nc: {<<: *x, k: 2}\n')
    first = {"k": 1e-4, "d": "2020-01-01", "t": "${b}, [c]"}
    assert read_yaml(file) == {"a": first, "b": [first] * 2, "c": {**first, "k": 2}}


def test_what_looks_like_a_time_or_has_zeros_before_it_is_text(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("[12:30, 1:30.5, 010, 2024-01-01, 0x10, 0, -7, 1_000, 1.5]")
    assert read_yaml(file) == ["12:30", "1:30.5", "010", "2024-01-01", 16, 0, -7, 1000, 1.5]


def aliases(levels: int) -> str:
    lines = [f"{NAMES[0]}: &{NAMES[0]} [{'x, ' * 9}x]"]
    lines += [f"{b}: &{b} [{f'*{a}, ' * 9}*{a}]" for a, b in pairwise(NAMES[:levels])]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (aliases(8), "line 6: its aliases stand for more than 2 MB"),
        ("a: &a [*a]", "line 1: the alias *a has no finished content"),
        ("a: *b", "the alias *b"),
        ("[" * (MOST_LEVELS + 1), f"more than {MOST_LEVELS} levels"),
        ("a: " + "x" * 2_000_001, "more than 2 MB"),
        ("x: 1\na: !!python/object/apply:os.system [x]", "line 2: the tag tag:yaml.org,2002:python/object"),
        ("a: !mine x", "the tag !mine"),
        ("a: !!binary eA==", "binary"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key a stands twice"),
        ("a: [1\nb: 2", "line 2"),
        ("a: 1\n---\nb: 2", "line 2"),
        ("a: \x07", "cannot be read as YAML"),
        (b"a: \xff", "cannot be read as YAML"),
        (f"a: {'9' * 5000}", "cannot be read as YAML"),
    ],
    ids=range(14),
)
def test_a_file_out_of_bounds_is_one_line(text, named, tmp_path):
    file = tmp_path / "a.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    tracemalloc.start()
    with pytest.raises(InputError) as caught:
        read_yaml(file)
    assert tracemalloc.get_traced_memory()[1] < 2e7
    tracemalloc.stop()
    (line,) = str(caught.value).splitlines()
    assert line.startswith(str(file))
    assert named in line
    assert len(line) < 600


def test_a_device_is_no_file():
    with pytest.raises(InputError, match="there is no such file"):
        read_yaml(Path("/dev/zero"))
