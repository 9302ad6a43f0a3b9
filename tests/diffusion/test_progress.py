"""Progress bars on a terminal and in a log file."""

import io
import sys
import time

import pytest

from motionexp.diffusion import progress
from motionexp.diffusion.progress import progress_bar, step_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def no_waiting(monkeypatch):
    monkeypatch.setattr(progress, "LOG_SECONDS", 1e-9)


def test_a_bar_never_shows_that_nothing_is_known(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with step_bar("sample") as show:
        assert sys.stderr.getvalue() == ""
        show(1, 20)
        time.sleep(0.15)  # a terminal is updated ten times a second at most
        show(2, 20)
    shown = sys.stderr.getvalue()
    assert "2/20" in shown
    assert "?" not in shown
    assert "0step [" not in shown
    assert "\n" not in shown


@pytest.mark.usefixtures("no_waiting")
def test_a_log_file_has_whole_lines(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress_bar(4, "score", "video", done=1) as bar:
        bar.update()
        bar.update()
    shown = sys.stderr.getvalue()
    lines = shown.splitlines()
    assert "\r" not in shown
    assert shown.endswith("\n")
    assert [line.split()[:3] for line in lines] == [["score:", "50%", "2/4"], ["score:", "75%", "3/4"]]
    assert "?" not in shown


def test_a_log_file_has_no_line_before_half_a_minute(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress_bar(1000, "fit", "step") as bar:
        for _ in range(1000):
            bar.update()
    assert sys.stderr.getvalue() == ""
    assert progress.LOG_SECONDS == 30


def test_a_hidden_bar_writes_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_bar(3, "fit", "step", shown=False) as bar:
        bar.update(3)
    assert sys.stderr.getvalue() == ""
