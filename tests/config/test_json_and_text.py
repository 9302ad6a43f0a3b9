"""The readers of text and JSON files from elsewhere: bounded, and damage is one line with its place."""

import json
from pathlib import Path

import pytest

from motionexp.config import text_file
from motionexp.config.json_file import read_json
from motionexp.config.text_file import read_text
from motionexp.errors import InputError


def refused(path: Path, read=read_json) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(str(path))
    assert len(line) < 600
    return line


@pytest.mark.parametrize(
    "text",
    ['{"a": [1, 2.5, null, true, "\\ud83d\\ude00 \\u00e9"], "b": {"a": 1e3}}', "\t[\t1,\r\n2]\n", "12"],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_json_is_read_as_python_reads_it(tmp_path, text, mark):
    path = tmp_path / "a.json"
    path.write_bytes(mark + text.encode())
    assert read_json(path) == json.loads(text)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b'{"bear": 1, "cow": 2, "bear": 3}', "'bear' stands twice"),
        (
            b'[{"video": "a.mp4", "caption": "x", "caption": "y"}]',
            "'caption' stands twice in {'video': 'a.mp4'",
        ),
        (b'{"' + b"k" * 10_000 + b'": 1, "' + b"k" * 10_000 + b'": 1}', "stands twice"),
        (b'[1,\n{"a": 1,}]', "line 2, column "),
        (b'{"a": 1}\n{"a": 2}', "line 2, column 1"),
        (b"", "line 1, column 1"),
        (b'{"a": NaN}', "NaN"),
        (b"[-Infinity]", "-Infinity"),
        (b"9" * 5000, "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b'["\\ud800"]', "cannot be read as JSON"),
    ],
    ids=range(11),
)
def test_damaged_json_is_one_line(tmp_path, content, named):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    assert named in refused(path)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("a\nb\u00e9".encode("latin-1"), "line 2: the byte 0xe9"),
        ("a\nb".encode("utf-16"), "line 1: UTF-16"),
        ("a\nb".encode("utf-16-le"), "line 1: a NUL byte"),
        (b"a\nb\0", "line 2: a NUL byte"),
        (b"\xff\xfea", "line 1: UTF-16"),
    ],
    ids=range(5),
)
def test_what_is_no_utf_8_is_named_with_its_line(tmp_path, content, named):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    assert named in refused(path, read_text)


def test_a_file_that_is_too_long_and_what_is_no_file_are_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    with path.open("wb") as file:
        file.truncate(5_000_000_000)  # takes no room on the disk
    monkeypatch.setattr(text_file, "MOST_BYTES", 1_000_000)
    assert "more than 1 MB" in refused(path, read_text)
    for name in ("none", "x" * 300, "a\0b"):
        assert "no such file" in refused(tmp_path / name, read_text)
    assert "no such file" in refused(Path("/dev/zero"), read_text)
