"""The questionnaire in a browser: a person answers, stops, goes on, and saves a file that the tally takes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from motionexp.jobs.pages.study.answers import read_answers, read_key
from motionexp.jobs.pages.study.command import study
from tests.support.made_study import answered, write_samples


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two studies of one person, with two pages and a check: `picks` and `ditflow`."""
    root = tmp_path_factory.mktemp("study")
    output = write_samples(root / "outputs", count=2, edits=1)
    for form in ("picks", "ditflow"):
        study([f"folder={root / form}", f"output={output}", "people=1", "pages=2", f"form={form}"])
    return root


def press(page: Any, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def link_of(folder: Path) -> str:
    return (folder / "links.txt").read_text().split(maxsplit=1)[1].strip()


def answer(page: Any, stored: dict[str, Any]) -> None:
    """Choose what a page of a file of answers has."""
    for question, choice in stored["answers"].items():
        groups = {question: choice} if isinstance(choice, str) else {
            f"{question} {letter}": str(level) for letter, level in choice.items()
        }  # fmt: skip
        for group, value in groups.items():
            page.check(f'input[name="{group}"][value="{value}"]')


def saved(page: Any, click: Callable[[], None]) -> dict[str, Any]:
    with page.expect_download() as download:
        click()
    content: dict[str, Any] = json.loads(Path(download.value.path()).read_text())
    return content


@pytest.mark.parametrize("form", ["picks", "ditflow"])
def test_a_person_answers_stops_goes_on_and_is_counted(root, opened, tmp_path, form):
    key = read_key(root / form / "key.json")
    (code,) = key["questionnaires"]

    def choose(question, page):
        return "tau=700" if form == "picks" else dict.fromkeys(page["columns"], 2)

    expected = answered(key, code, choose)
    page = opened(link_of(root / form))
    press(page, "Start")
    # 1. Nothing is answered: the page says so and stays.
    press(page, "Next")
    assert "Please answer" in page.inner_text("#lacking")
    assert page.inner_text("h1") == "Page 1"
    # 2. All videos play, within a frame of each other.
    page.wait_for_function("videos.every((v) => v.readyState > 2 && !v.paused && v.currentTime > 0.3)")
    page.wait_for_timeout(600)
    times = page.evaluate("videos.map((v) => v.currentTime)")
    assert max(times) - min(times) < 1 / 8
    answer(page, expected["pages"][0])
    page.wait_for_timeout(2100)  # the videos last two seconds
    press(page, "Next")
    # 3. The person stops, and the same link goes on where it was.
    page.reload()
    press(page, "Go on with page 2")
    for stored in expected["pages"][1:]:
        answer(page, stored)
        page.wait_for_timeout(2100)
        press(page, "Next")
    assert page.inner_text("h1") == "Thank you"
    content = saved(page, lambda: press(page, "Save my answers as a file"))
    assert json.loads(page.input_value("textarea")) == content
    assert [stored["answers"] for stored in content["pages"]] == [
        stored["answers"] for stored in expected["pages"]
    ]
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(content))
    answers = read_answers(key, [path])
    assert (len(answers.valid), answers.rejected) == (2, [])


def test_a_saved_file_goes_on_in_another_browser_and_a_keyboard_is_enough(root, opened, tmp_path):
    page = opened(link_of(root / "picks"))
    page.get_by_role("button", name="Start", exact=True).focus()
    page.keyboard.press("Enter")
    # A heading has the focus; then follow pause, the other button, and the choices.
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("videos.every((v) => v.paused)")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    content = saved(page, lambda: press(page, "Save and stop"))
    assert content["pages"][0]["answers"] == {"motion fidelity": "A"}
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(content))
    page = opened(link_of(root / "picks"))
    page.set_input_files("input[type=file]", path)
    press(page, "Go on with page 1")
    assert page.is_checked('input[name="motion fidelity"][value="A"]')
    page = opened(link_of(root / "ditflow"))
    page.set_input_files("input[type=file]", path)
    page.wait_for_function("document.getElementById('note').textContent.includes('not of this')")


def test_it_opens_from_a_server_on_a_phone(root, opened, served):
    address = f"{served(root / 'picks' / 'site')}/index.html"
    page = opened(f"{address}#{link_of(root / 'picks').rpartition('#')[2]}")
    page.set_viewport_size({"width": 390, "height": 800})
    press(page, "Start")
    page.wait_for_function("videos.every((v) => v.readyState > 2)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    names = page.evaluate("[...document.querySelectorAll('video')].map((v) => v.ariaLabel)")
    assert names[:3] == ["Reference", "A, video 1", "A, video 2"]
    assert opened(address).inner_text("h1") == "A link is missing a part"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("form", ["picks", "ditflow"])
def test_axe_finds_no_serious_fault(root, opened, served, form, scheme, serious_faults):
    address, code = served(root / form / "site"), link_of(root / form).rpartition("#")[2]
    page = opened(f"{address}/index.html#{code}", color_scheme=scheme)
    page.wait_for_selector("h1")
    for place in ("start", "page", "end", "instructions"):
        if place == "page":
            press(page, "Start")
            press(page, "Next")  # with the warning
        elif place == "end":
            page.evaluate("showEnd()")
        elif place == "instructions":
            page.goto(f"{address}/instructions.html")
        assert serious_faults(page) == [], place


def test_a_hostile_caption_is_text(opened, tmp_path):
    output = write_samples(tmp_path / "outputs", count=1, edits=1)
    hostile = "<img src=x onerror=alert(1)></script>"
    for path in output.rglob("rows.jsonl"):
        rows = [json.loads(line) | {"edit_caption": hostile} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study([f"folder={tmp_path / 'new'}", f"output={output}", "people=1", "pages=1"])
    page = opened(link_of(tmp_path / "new"))
    press(page, "Start")
    assert page.inner_text("q") == hostile
    assert page.locator("main img").count() == 0
