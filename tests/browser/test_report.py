"""The report in a browser: its videos are in step, its filters filter, and everybody can use it."""

import json
import shutil
from dataclasses import replace
from itertools import cycle, pairwise

import pytest

from motionexp.cli import main
from motionexp.jobs.pages.report.content import Source, content_of
from motionexp.jobs.pages.report.media import write_media
from motionexp.jobs.pages.report.pages import write_pages
from tests.support.made_output import (
    FPS,
    FRAMES,
    KINDS,
    REFERENCES,
    TAUS,
    write_failed,
    write_output,
    write_probe,
)

HOSTILE = "<script>window.hacked = 1; alert('x')</script><img src=x onerror='window.hacked = 1'> {kind}"
VIEWS = ("samples.html", f"references/shapes-{REFERENCES[0]}.html")
PAGES = ("index.html", *VIEWS, "probes.html", "failures.html")
SHOWN = "#groups .card"
# Of every visible video the frame that it shows.
FRAMES_SHOWN = """() => [...document.querySelectorAll('video')].filter((video) => video.readyState >= 2
    && motionexp.player.visible.has(video)).map((video) => Math.floor(video.currentTime * 8 + 1e-6))"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    output = tmp_path_factory.mktemp("made") / "out"
    write_output(output, HOSTILE)
    write_probe(output)
    write_failed(output)
    assert main(["report", f"output={output}"]) == 0
    return output / "report"


def is_ready(page) -> None:
    """Wait until every visible video shows a frame."""
    page.wait_for_function(
        """motionexp.player.visible.size > 1
        && [...motionexp.player.visible].every((video) => video.readyState >= 2)"""
    )


def start(opened, report, page="samples.html", hash="", **about):
    opened_page = opened(f"{(report / page).as_uri()}#{hash}", **about)
    is_ready(opened_page)
    return opened_page


@pytest.mark.parametrize("path", PAGES)
def test_pages_load_from_a_disk_and_from_a_server(path, report, opened, served):
    for address in ((report / path).as_uri(), f"{served(report)}/{path}"):
        page = opened(address)
        page.wait_for_load_state("networkidle")
        assert page.title()
        assert page.evaluate("window.hacked") is None
        if path in (*VIEWS, "probes.html"):
            is_ready(page)


def test_filters_filter_and_the_link_shows_the_same(report, opened):
    page = start(opened, report)
    assert page.locator(SHOWN).count() == len(REFERENCES) * (1 + len(KINDS) * len(TAUS))
    page.locator("[data-filter=tau] summary").click()
    page.locator("input[name=tau][value='700']").check()
    page.locator("[data-filter=kind] summary").click()
    page.locator("input[name=kind][value=style]").check()
    page.locator("select[name=sort]").select_option("velocity_similarity")
    page.locator("select[name=group]").select_option("")
    keys = page.eval_on_selector_all(SHOWN, "cards => cards.map((card) => card.dataset.key)")
    assert page.eval_on_selector_all(SHOWN, "cards => cards.map((card) => card.dataset.tau)") == ["700"] * 2
    assert page.locator(".status").inner_text() == "2 of 12 samples"
    again = opened(page.url)
    assert again.eval_on_selector_all(SHOWN, "cards => cards.map((card) => card.dataset.key)") == keys
    again.locator("[data-do=reset]").click()
    assert again.locator(SHOWN).count() == len(REFERENCES) * len(KINDS) * len(TAUS)


def test_samples_are_sorted_by_any_score_the_best_first(report, opened):
    page = start(opened, report, hash="group=")
    for name, sign in (("velocity_similarity", 1), ("nuisance_similarity", -1)):
        page.locator("select[name=sort]").select_option(name)
        values = page.eval_on_selector_all(
            SHOWN, f"cards => cards.map((card) => JSON.parse(card.dataset.scores).{name})"
        )
        assert len(values) == 12
        assert all(sign * before >= sign * after for before, after in pairwise(values))


def spread(frames):
    """Frames of the shortest stretch that holds all; the last frame and the first are neighbours."""
    ordered = sorted({*frames})
    return FRAMES - max(after - before for before, after in pairwise([*ordered, ordered[0] + FRAMES]))


def test_a_spread_is_that_of_all_frames():
    assert [spread(frames) for frames in ([4, 4], [FRAMES - 1, 0, 0], [0, 5, 10])] == [0, 1, 10]


def test_videos_are_in_step_within_one_frame(report, opened):
    page = start(opened, report, f"references/shapes-{REFERENCES[0]}.html")
    page.wait_for_timeout(1000)
    spreads = []
    for _ in range(20):
        frames = page.evaluate(FRAMES_SHOWN)
        assert len(frames) > 3
        spreads.append(spread(frames))
        page.wait_for_timeout(150)
    assert max(spreads) <= 1, spreads


def test_one_control_pauses_and_steps_all_videos(report, opened):
    page = start(opened, report, hash="frame=3")
    page.wait_for_function(f"({FRAMES_SHOWN})().every((frame) => frame === 3)")
    assert page.locator("[data-do=play]").inner_text() == "Play"
    page.locator("[data-do=forward]").click()
    page.wait_for_function(f"({FRAMES_SHOWN})().every((frame) => frame === 4)")
    page.locator("body").press("ArrowLeft")
    page.wait_for_function(f"({FRAMES_SHOWN})().every((frame) => frame === 3)")
    assert page.locator("output").inner_text() == f"4 / {FRAMES}"
    for _ in range(4):
        page.locator("[data-do=back]").click()
    page.wait_for_function(f"({FRAMES_SHOWN})().every((frame) => frame === {FRAMES - 1})")
    page.locator("h1").click()  # takes the focus from the button, whose key Space is
    page.locator("body").press(" ")
    assert page.locator("[data-do=play]").inner_text() == "Pause"
    page.locator("select[name=speed]").select_option("0.25")
    page.wait_for_timeout(1500)
    rates = page.evaluate("[...motionexp.player.visible].map((video) => video.playbackRate)")
    assert all(0.1 < rate < 0.4 for rate in rates)


def test_without_a_loop_the_videos_end_at_their_last_frame(report, opened):
    page = start(opened, report, hash="loop=false&speed=2")
    page.wait_for_function("!motionexp.player.isPlaying", timeout=20_000)
    page.wait_for_function(f"({FRAMES_SHOWN})().every((frame) => frame === {FRAMES - 1})")
    assert page.locator("[data-do=play]").inner_text() == "Play"


def test_only_visible_videos_play(report, opened):
    page = start(opened, report, hash="size=384&group=")
    page.wait_for_timeout(500)
    outside = """() => [...document.querySelectorAll('video')].filter((video) => {
        const box = video.getBoundingClientRect();
        return !video.paused && (box.bottom < -50 || box.top > innerHeight + 50);
    }).length"""
    assert page.evaluate(outside) == 0
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_timeout(800)
    assert page.evaluate(outside) == 0
    page.wait_for_function("[...motionexp.player.visible].some((video) => !video.paused)")


def test_overlays_and_curves_are_drawn(report, opened):
    page = start(opened, report, hash="frame=3")
    drawn = """() => [...document.querySelectorAll('#groups .sample .frame canvas')].filter((canvas) => {
        const pixels = canvas.hidden || !canvas.width ? [] :
            canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        return pixels.some((value) => value > 0);
    }).length"""
    assert page.evaluate(drawn) == 0
    for kind in ("flow", "tracks"):
        page.locator("select[name=overlay]").select_option(kind)
        page.wait_for_function(f"({drawn})() > 2")
    page.locator("select[name=overlay]").select_option("")
    assert page.evaluate(drawn) == 0
    page.locator("select[name=curve]").select_option("text_alignment")
    page.wait_for_selector(".curve .cursor", state="attached")
    place = "() => document.querySelector('.sample .curve .cursor').style.transform"
    before = page.evaluate(place)
    page.locator("[data-do=forward]").click()
    page.wait_for_function(f"({place})() !== {json.dumps(before)}")


def test_details_have_the_command(report, opened):
    page = start(opened, report)
    page.locator(".sample summary").first.click()
    page.wait_for_selector(".about code")
    assert page.locator(".about code").first.inner_text().startswith("python run.py model=tiny_latte")
    assert page.locator(".about table th").count() > 3


def test_a_click_on_a_point_opens_its_samples(report, opened):
    page = opened((report / "index.html").as_uri())
    box = page.locator(".u-over").first
    box.scroll_into_view_if_needed()
    area = box.bounding_box()
    # Look for a point by the cursor that it has.
    for across in range(5, int(area["width"]), 12):
        for down in range(5, int(area["height"]), 12):
            page.mouse.move(area["x"] + across, area["y"] + down)
            if page.locator(".tip:not([hidden])").count():
                page.mouse.click(area["x"] + across, area["y"] + down)
                page.wait_for_url("**/samples.html#**")
                assert page.locator("#groups .sample").count() == len(REFERENCES) * len(KINDS)
                return
    pytest.fail("no point found")


def test_a_keyboard_reaches_every_control(report, opened):
    page = start(opened, report)
    names = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        names.add(page.evaluate("document.activeElement.name || document.activeElement.dataset.do || ''"))
    assert {
        "play",
        "back",
        "forward",
        "frame",
        "speed",
        "loop",
        "overlay",
        "curve",
        "group",
        "sort",
        "link",
    } <= names


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(scheme, report, opened, served, serious_faults):
    address = served(report)  # from a disk axe could not read the styles
    for path in PAGES:
        page = opened(f"{address}/{path}", color_scheme=scheme)
        page.wait_for_timeout(500)
        if path in VIEWS:
            page.locator(".filter summary").first.click()
            page.locator("select[name=curve]").select_option("text_alignment")
            page.locator(".sample .about summary").first.click()
        page.wait_for_timeout(300)
        assert serious_faults(page) == [], path


@pytest.mark.parametrize("path", PAGES)
def test_pages_fit_a_phone(path, report, opened):
    page = opened((report / path).as_uri())
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_timeout(300)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390


def test_the_chosen_lines_alone_are_drawn(report, opened):
    page = opened((report / "index.html").as_uri())
    plot = page.locator(".group canvas").first
    whole = plot.screenshot()
    name = page.locator(".legend").first.get_by_role("button", name="lora")
    name.focus()
    page.keyboard.press("Enter")
    assert name.get_attribute("aria-pressed") == "true"
    assert plot.screenshot() != whole  # without the base model
    page.keyboard.press("Enter")
    assert plot.screenshot() == whole


def test_without_scripts_videos_have_controls_of_their_own(report, browser):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto((report / "samples.html").as_uri())
    assert page.locator(f"{SHOWN} video[controls][src]").count() == len(REFERENCES) * len(KINDS) * len(TAUS)
    assert FPS == 8  # of FRAMES_SHOWN


def test_a_cell_of_a_heat_map_plays_its_video(report, opened):
    page = start(opened, report, "probes.html")
    page.get_by_label("from 900 until 800").click()
    assert page.locator(".chosen figcaption").inner_text() == "from 900 until 800"
    key = page.locator(".heat [aria-pressed=true]").get_attribute("data-key")
    page.wait_for_function(f"document.querySelector('.chosen video').currentSrc.endsWith('{key}.mp4')")
    is_ready(page)
    again = opened(page.url)
    assert again.locator(".heat [aria-pressed=true]").get_attribute("data-key") == key


@pytest.fixture(scope="module")
def large(tmp_path_factory, report):
    """A report of 500 samples: copies of those of the small one."""
    output = report.parent
    content = content_of([Source(output)], {})
    folder = tmp_path_factory.mktemp("large") / "report"
    write_media(folder, content)
    samples, media = [], dict(content.media)
    for number, sample in zip(range(500), cycle(content.samples)):
        copy = replace(sample, rows=[replace(row, sample_id=f"{number:012x}") for row in sample.rows])
        samples.append(copy)
        media[copy.key] = media[sample.key]
        for place, suffix in (("media", ".mp4"), ("media", ".webp"), ("samples", ".js")):
            shutil.copyfile(folder / place / f"{sample.key}{suffix}", folder / place / f"{copy.key}{suffix}")
    content.samples, content.media = samples, media
    write_pages(folder, content)
    return folder


def test_500_videos_stay_smooth(large, opened):
    page = opened((large / "samples.html").as_uri() + "#group=&size=160")
    is_ready(page)
    assert page.locator("#groups video").count() == 500
    page.evaluate("""() => {
        window.intervals = [];
        let last = performance.now();
        const note = (now) => { intervals.push(now - last); last = now; requestAnimationFrame(note); };
        requestAnimationFrame(note);
    }""")
    counts = []
    for _ in range(12):
        page.mouse.wheel(0, 700)
        page.wait_for_timeout(400)
        counts.append(
            page.evaluate("""() => {
                const videos = [...document.querySelectorAll('#groups video')];
                const isSeen = (video) => { const box = video.getBoundingClientRect();
                    return box.bottom > -50 && box.top < innerHeight + 50; };
                return [videos.filter((video) => !video.paused && !isSeen(video)).length,
                    videos.filter((video) => video.hasAttribute('src') && video.readyState > 0).length];
            }""")
        )
    intervals = sorted(page.evaluate("intervals"))
    middle, late = intervals[len(intervals) // 2], intervals[int(len(intervals) * 0.95)]
    print(f"500 videos: a frame every {middle:.0f} ms (median), {late:.0f} ms (95%)", counts)
    assert all(playing == 0 for playing, _ in counts)
    assert all(0 < loaded <= 150 for _, loaded in counts)
    assert page.evaluate("scrollY") > 3000
    assert middle < 100


def test_a_phone_shows_two_samples_beside_each_other(report, opened):
    page = opened((report / VIEWS[1]).as_uri())
    page.set_viewport_size({"width": 390, "height": 800})
    tops = page.evaluate(f"[...document.querySelectorAll('{SHOWN}')].map((card) => card.offsetTop)")
    assert tops[0] == tops[1] < tops[2]


def test_print_has_whole_tables(report, opened):
    page = opened((report / "index.html").as_uri())
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 with margins of a centimetre
    page.emulate_media(media="print")
    assert page.locator("table").count() > 1
    assert page.evaluate(
        """[...document.querySelectorAll('table')].every(
        (table) => table.getBoundingClientRect().right <= innerWidth)"""
    )
    assert page.locator(".site nav").is_hidden()
