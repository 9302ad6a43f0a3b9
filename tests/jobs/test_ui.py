"""The page's jobs, without the page: the command of a choice, limits of a clip, the queue, the progress."""

import importlib.util
import json
import os
import shlex
import socket
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from motionexp.cli import main
from motionexp.config.compose import load
from motionexp.data.videos import write_mp4
from motionexp.errors import InputError
from motionexp.files import locked
from motionexp.jobs.pages.ui import markup, progress, queue, request
from motionexp.jobs.pages.ui.progress import estimate_in_words, job_progress
from motionexp.jobs.pages.ui.queue import DONE, FAILED, RUNNING, STOPPED, WAITING, JobQueue, UiJob
from motionexp.jobs.pages.ui.request import Request, lines_of, store_upload

REFERENCE = "01-wander-cyan-square"
# Says that it began, works until it is asked to end, and counts who works at the same time.
WORK = (
    "import sys, time; print('began', flush=True); time.sleep(float(sys.argv[1])); sys.exit(int(sys.argv[2]))"
)


def chosen(tmp_path, **more) -> Request:
    about = request.described(REFERENCE)
    edits = [edit.caption for edit in about.edits[:2]]
    plain = Request("tiny_latte", "lora", REFERENCE, None, about.caption, edits, 700.0, str(tmp_path))
    return replace(plain, **more)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "my clip; $(x).mp4"
    write_mp4(path, np.zeros((24, 64, 64, 3), np.uint8), fps=8)
    return path


def test_the_command_has_the_settings_of_the_choice(tmp_path, clip):
    video = store_upload(clip, str(tmp_path / "out"))
    hostile = r"""a "red" plain\circle\", [is] ${moving} on 'sand'\\"""
    for about in (
        chosen(tmp_path),
        chosen(tmp_path, edits=["a red plain star is moving on ice"], tau=0.0, method="full_rank"),
        chosen(tmp_path, video=video, caption=hostile, edits=[hostile, "a, b"], model="latte"),
    ):
        python, program, *words = shlex.split(about.command())
        assert (python, program, words) == ("python", "run.py", about.words())
        cfg = load(words)
        assert (cfg.model.name, cfg.tau, cfg.output) == (about.model, about.tau, about.output)
        if about.video is not None:
            assert (cfg.video, cfg.caption, cfg.edits) == (str(video), hostile, [hostile, "a, b"])


def test_edits_of_the_reference_keep_their_kinds(tmp_path):
    about = request.described(REFERENCE)
    cfg = load(chosen(tmp_path).words())
    assert (cfg.edits, cfg.edit_kinds) == (None, [edit.kind for edit in about.edits[:2]])
    cfg = load(chosen(tmp_path, edits=["a red plain star is moving on ice"]).words())
    assert (cfg.edits, cfg.edit_kinds) == (["a red plain star is moving on ice"], None)


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"edits": []}, "edits"),
        ({"edits": [f"a red plain star is moving on {ground}" for ground in "abcdefghi"]}, "edits"),
        ({"edits": ["a dog is barking"]}, "barking"),
        ({"model": "latte"}, "latte"),
        ({"tau": 2000.0}, "tau"),
    ],
)
def test_what_cannot_run_is_refused_before_it_waits(wrong, name, tmp_path):
    with pytest.raises(InputError, match=name):
        chosen(tmp_path, **wrong).settings()


def test_a_clip_needs_a_caption(tmp_path, clip):
    with pytest.raises(InputError, match="caption"):
        chosen(tmp_path, video=store_upload(clip, str(tmp_path)), caption=" ").settings()


def test_a_clip_has_limits(tmp_path, clip, monkeypatch):
    output = str(tmp_path / "out")
    stored = store_upload(clip, output)
    assert stored.read_bytes() == clip.read_bytes()
    assert store_upload(clip, output) == stored
    (tmp_path / "a.txt").write_text("no video")
    (tmp_path / "b.mp4").write_text("no video")
    for name in ("a.txt", "b.mp4"):
        with pytest.raises(InputError, match=name):
            store_upload(tmp_path / name, output)
    for limit, value in (("MOST_SECONDS", 2.9), ("MOST_BYTES", clip.stat().st_size - 1)):
        with monkeypatch.context() as patch:
            patch.setattr(request, limit, value)
            with pytest.raises(InputError, match="clip"):
                store_upload(clip, output)
    assert len(list((tmp_path / "out" / "uploads").iterdir())) == 1


def test_captions_are_lines():
    assert lines_of(" a cat \n\na dog\na cat") == ["a cat", "a dog"]
    assert lines_of(None) == []


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """A queue whose jobs are small programs: `[seconds, exit code]`."""
    monkeypatch.setattr(queue, "PROGRAM", (sys.executable, "-c", WORK))
    jobs = JobQueue(tmp_path / "logs")
    yield jobs
    jobs.close()


def until(condition, seconds=60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_one_job_runs_at_a_time_in_order(jobs):
    cfg = load()
    first, second, third = (
        jobs.submit(cfg, [seconds, code]) for seconds, code in (("0.2", "0"), ("0", "3"), ("0", "0"))
    )
    until(lambda: first.state == RUNNING)
    assert [second.state, third.state] == [WAITING, WAITING]
    assert jobs.waiting() == [second, third]
    assert "Jobs before it: 2" in markup.status(third, jobs)
    until(lambda: third.is_over)
    assert [job.state for job in (first, second, third)] == [DONE, FAILED, DONE]
    assert first.ended <= second.began <= second.ended <= third.began
    assert first.printed() == "began"
    assert jobs.get(2) is second
    assert jobs.get(None) is None


def test_stop_ends_a_running_job_and_takes_out_a_waiting_one(jobs):
    cfg = load()
    running, waiting, last = (jobs.submit(cfg, [seconds, "0"]) for seconds in ("1000", "1000", "0"))
    until(lambda: running.printed() == "began")
    jobs.stop(waiting)
    jobs.stop(running)
    until(lambda: last.is_over)
    assert [job.state for job in (running, waiting, last)] == [STOPPED, STOPPED, DONE]
    assert waiting.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(running.pid, 0)


def test_close_stops_the_job_that_runs(jobs):
    job = jobs.submit(load(), ["1000", "0"])
    until(lambda: job.printed() == "began")
    jobs.close()
    assert job.state == STOPPED


def test_the_queue_is_limited(jobs, monkeypatch):
    monkeypatch.setattr(queue, "MOST_WAITING", 1)
    running = jobs.submit(load(), ["1000", "0"])
    until(lambda: running.state == RUNNING)
    jobs.submit(load(), ["0", "0"])
    with pytest.raises(InputError, match="1"):
        jobs.submit(load(), ["0", "0"])


def write_cell(output, name, step, steps, stage, seconds, **about):
    cell = output / "shapes" / "tiny_latte" / name
    cell.mkdir(parents=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    status = {"state": "running", "since": now, "host": socket.gethostname(), "pid": os.getpid(), **about}
    (cell / "status.json").write_text(json.dumps(status))
    about = {"stage": stage, "step": step, "steps": steps, "loss": 0.5, "time": now, "seconds": seconds}
    (cell / "progress.json").write_text(json.dumps(about))
    return cell


def test_the_time_left_follows_from_the_steps_that_are_done(tmp_path):
    cfg = load([f"output={tmp_path}", "edit_kinds=[style]", "train_steps=100", "steps=20"])
    job = UiJob(1, cfg, [], tmp_path / "log", RUNNING, os.getpid(), time.monotonic())
    assert job_progress(job) == progress.JobProgress(0.0, "starting", None)
    with ExitStack() as locks:
        cell = write_cell(tmp_path, "tuned", 50, 100, "fit", 30.0, tau=700)
        locks.enter_context(locked(cell / ".lock"))
        write_cell(tmp_path, "of-another-process", 1, 1, "fit", 1000.0, pid=1)
        # In passes through the network: a training step takes 3, a guided sampling step 2.
        of_training, of_samples = 100 * cfg.batch_size * 3, 20 * 2
        share = of_training / 2 / (of_training + 2 * of_samples)
        done = job_progress(job)
        assert done.share == pytest.approx(share)
        assert done.left == pytest.approx(30 * (1 - share) / share)
        assert done.doing == "training: 50 of 100, loss 0.500"


def test_the_estimate_of_a_bundled_model_is_as_published(tmp_path):
    about = estimate_in_words(load([f"output={tmp_path}", "model=tiny_unet3d"]))
    fewer = estimate_in_words(load([f"output={tmp_path}", "model=tiny_unet3d", "train_steps=1"]))
    assert "80 s" in about  # 70.4 s of results/bench/cells.md, and the imports
    assert "26 s" in fewer
    assert "Estimate" in estimate_in_words(load([f"output={tmp_path}", "model=latte", "tau=700"]))


def test_text_out_of_data_is_escaped(tmp_path):
    hostile = "<script>x</script>"
    assert "<script>" not in markup.error(hostile) + markup.video(tmp_path / hostile, hostile, hostile)


def test_without_gradio_the_extra_is_named(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gradio" else find(name))
    assert main(["ui"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["ui", "port=80"]) == 2
    assert main(["ui", "share=true"]) == 2
    lines = capsys.readouterr().err
    assert "port=80" in lines
    assert "share" in lines
