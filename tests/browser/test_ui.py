"""The page to try it on, in a browser, end to end: a job runs, its videos play, its adapter is downloaded."""

import hashlib
import importlib.util
import os
import shlex
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from motionexp.config.compose import load
from motionexp.data.videos import write_mp4
from motionexp.files import PACKAGE

REFERENCE = "03-wander-red-circle"
NOT_IMPLEMENTED = "warning: Method not implemented."
WAIT = 600_000
"""Milliseconds, on a machine that others use too."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def address(folder):
    """The page of a server of its own."""
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("the Python package gradio is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "motionexp", "ui", "output=out", f"port={port}"]
    paths = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, env=os.environ | {"PYTHONPATH": paths})
    end = time.monotonic() + 120
    while "page:" not in (folder / "server.log").read_text():
        assert server.poll() is None
        assert time.monotonic() < end
        time.sleep(0.2)
    yield f"http://127.0.0.1:{port}"
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 128 + signal.SIGTERM


@pytest.fixture
def page(opened, address):
    """The page, once its reference plays. Nothing but this machine was asked."""
    asked = []
    page = opened("about:blank")
    page.set_default_timeout(120_000)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_function("document.querySelector('video')?.readyState >= 2")
    page.wait_for_selector(".curve img")
    yield page
    outside = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert outside == []
    # Gradio's, where a file is taken out of its control.
    opened.problems = [problem for problem in opened.problems if problem != NOT_IMPLEMENTED]


def choose(page, label, option) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()


def command(page) -> list[str]:
    """The words of the command that the page shows."""
    text = page.locator(".cm-content").inner_text()
    python, program, *words = shlex.split(text.replace("\n", " "))
    assert (python, program) == ("python", "run.py")
    return words


def test_a_job_runs_from_a_choice_to_an_adapter(page, folder):
    choose(page, "Bundled reference", REFERENCE)
    page.wait_for_function("document.querySelector('textarea')?.value.includes('red')")
    page.get_by_role("button", name="Run").click()
    page.wait_for_selector(".status progress", timeout=WAIT)
    page.wait_for_selector("text=/training: \\d+ of 100/", timeout=WAIT)
    page.wait_for_selector("text=/about .* left/", timeout=WAIT)
    page.wait_for_selector("text=/Job \\d+ is done/", timeout=WAIT)
    page.wait_for_selector("text=/by the last jobs of tiny_latte here/")
    labels = ["Reference", "Reference", "Base model", "Tuned"]
    page.wait_for_function("document.querySelectorAll('video').length === 4")
    assert page.locator("figcaption b").all_inner_texts() == labels
    page.wait_for_function(
        "[...document.querySelectorAll('video')].every((video) => video.readyState >= 2 && !video.paused)"
    )
    sources = page.eval_on_selector_all("video", "videos => videos.map((video) => video.src)")
    assert len(set(sources)) == 3  # the reference is there twice
    words = command(page)
    cfg = load(words)
    assert (cfg.references, cfg.tau, cfg.output) == ([REFERENCE], 700, "out")
    with page.expect_download() as download:
        page.get_by_text("Download the adapter").click()
    content = download.value.path().read_bytes()
    stored = list((folder / "out" / "shapes" / "tiny_latte").glob("*/adapter/adapter.safetensors"))
    assert [hashlib.sha256(path.read_bytes()).digest() for path in stored] == [
        hashlib.sha256(content).digest()
    ]
    # The command does the same: nothing is left for it to do.
    done = subprocess.run(
        [sys.executable, "-m", "motionexp", *words], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
    )  # fmt: skip
    assert "nothing left to train or sample" in done.stdout, done.stderr


def test_stop_ends_a_job_and_the_queue_is_shown(page, opened, address):
    choose(page, "Method", "full_rank")
    page.get_by_role("button", name="Run").click()
    page.wait_for_selector("text=/Queue: job \\d+ runs/", timeout=WAIT)
    second = opened(address)
    second.set_default_timeout(120_000)
    second.wait_for_selector("video")
    second.get_by_role("button", name="Run").click()
    second.wait_for_selector("text=/Jobs before it: 1/")
    second.get_by_role("button", name="Stop").click()
    second.wait_for_selector("text=/is stopped/")
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector("text=/is stopped/", timeout=WAIT)


def test_tau_moves_the_window_in_the_curve(page):
    before = page.locator(".curve img").get_attribute("src")
    slider = page.locator("input[type=range]")
    slider.focus()
    slider.press("Home")
    page.wait_for_function("(before) => document.querySelector('.curve img').src !== before", arg=before)
    assert "700" in page.locator(".curve p").inner_text()
    choose(page, "Model", "tiny_unet3d")
    page.wait_for_selector("text=/The default τ of tiny_unet3d is 600/")
    page.wait_for_selector("text=/Time: about 80 s/")
    choose(page, "Model", "latte")
    page.wait_for_selector("text=/No probe of latte is stored/")


def test_a_clip_is_checked_and_its_captions_are_text(page, folder):
    page.get_by_text("a clip of your own").click()
    page.get_by_role("button", name="Run").click()
    page.wait_for_selector("[role=alert] >> text=/choose a file/")
    write_mp4(folder / "long.mp4", np.zeros((70, 64, 64, 3), np.uint8), fps=1)
    page.locator("input[type=file]").set_input_files(folder / "long.mp4")
    page.wait_for_selector("[role=alert] >> text=/at most 60 s/")
    page.get_by_label("Clear").first.click()
    frames = np.random.default_rng(0).integers(0, 255, (24, 64, 64, 3), np.uint8)
    write_mp4(folder / "short.mp4", frames, fps=8)
    page.locator("input[type=file]").set_input_files(folder / "short.mp4")
    page.wait_for_selector("video")
    hostile = "<img src=x onerror='window.hacked = 1'> ${window.hacked = 1}"
    page.get_by_label("Caption of the reference").fill(hostile)
    page.get_by_label("Edits: what to show").fill("a red plain star is moving on ice")
    page.get_by_role("button", name="Run").click()
    page.wait_for_selector("[role=alert] >> text=/onerror|window/")
    assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(scheme, opened, address, serious_faults):
    page = opened(address, color_scheme=scheme)
    page.set_default_timeout(120_000)
    page.wait_for_selector(".curve img")
    assert serious_faults(page) == []
    # With an alert, the command, and the controls of a clip.
    page.get_by_text("a clip of your own").click()
    page.get_by_role("button", name="Run").click()
    page.wait_for_selector("[role=alert]")
    page.wait_for_timeout(500)  # the alert fades in
    assert serious_faults(page) == []
