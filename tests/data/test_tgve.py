"""TGVE's folder as it unzips: its table, its videos, and which frames are taken."""

import csv
import shutil

import pytest

from motionexp.config.compose import load, options
from motionexp.data.base import References
from motionexp.data.tgve import TABLE, TGVE, frame_indices
from motionexp.errors import InputError
from tests.support.made_suites import (
    COUNTS,
    DATA,
    HEADER,
    KINDS,
    LENGTHS,
    linked,
    made_lines,
    make_tgve,
    needs_data,
    numbers_of,
    write_table,
)
from tests.support.made_videos import encode, numbered, numbers


@pytest.fixture
def folder(whole_tgve, tmp_path):
    return linked(whole_tgve, tmp_path / "tgve")


def refused(folder) -> str:
    with pytest.raises(InputError) as caught:
        TGVE(folder).names()
    return str(caught.value)


def test_it_has_76_references_and_304_edits(whole_tgve):
    reader: References = TGVE(whole_tgve)
    described = [reader.describe(name) for name in reader.names()]
    assert (len(described), sum(len(each.edits) for each in described)) == (76, 304)
    assert reader.names() == [line[0] for lines in made_lines().values() for line in lines]
    first = described[0]
    assert first.caption == "thing 0 moves"
    assert [(edit.kind, edit.caption) for edit in first.edits] == [
        (kind, f"thing 0 by {kind}") for kind in KINDS
    ]
    assert [each.frames for each in described] == [
        LENGTHS[s] for s, count in COUNTS.items() for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("frames", "taken", "scored", "fps"),
    [
        (16, list(range(0, 32, 2)), None, 8),
        (17, [*range(0, 32, 2), 31], 16, 8),
        (8, list(range(0, 32, 4)), None, 4),
        (
            24,
            [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 16, 17, 18, 20, 21, 22, 24, 25, 26, 28, 29, 30],
            None,
            12,
        ),
        (32, list(range(32)), None, 16),
        (33, [*range(32), 31], 32, 16),
        (1, [0], None, 0.5),
    ],
)
def test_two_seconds_are_the_first_32_frames(whole_tgve, frames, taken, scored, fps):
    reference = TGVE(whole_tgve).read("dav-3", frames, 24, 32)
    assert numbers_of(reference.frames) == taken
    assert (reference.scored_frames, reference.fps, reference.suite) == (scored, fps, "tgve")
    assert reference.strata == {"source": "DAVIS_480p"}


@pytest.mark.parametrize(
    ("frames", "taken"),
    [(16, [*range(0, 32, 2)]), (17, [*range(0, 32, 2), 32]), (81, [*range(81)]), (128, [*range(128)])],
)
def test_long_videos_have_more_to_give(whole_tgve, frames, taken):
    assert numbers_of(TGVE(whole_tgve).read("you-0", frames, 24, 32).frames) == taken


def test_how_long_a_video_is_is_known_before_it_is_read(whole_tgve):
    reader = TGVE(whole_tgve)
    assert [reader.long_enough("dav-0", frames) for frames in (16, 33, 34, 81)] == [True, True, False, False]
    assert [reader.long_enough("you-0", frames) for frames in (81, 128, 129)] == [True, True, False]


def test_too_many_frames_are_refused(whole_tgve):
    with pytest.raises(InputError, match=r"vid-0: 49 frames are asked for, and it has 32 images"):
        TGVE(whole_tgve).read("vid-0", 49, 24, 32)


# What docs/data.md lists: lengths for the short videos, of models whose default is longer.
SHORTER = {
    "wan_1_3b": [17, 21, 25, 29, 33],
    "wan_14b": [17, 21, 25, 29, 33],
    "wan2_2_14b": [17, 21, 25, 29, 33],
    "ltx": [9, 17, 25, 33],
    "hunyuan": [5, 9, 13, 17, 21, 25, 29, 33],
}


@pytest.mark.parametrize("name", [each for each in options("model") if not each.startswith("tiny_")])
def test_every_real_model_has_a_length_that_the_short_videos_have(name):
    model = load([f"model={name}"]).model
    low, high = model.frame_range or (model.frames, model.frames)
    lengths = range(low, high + 1, model.frame_step)
    fitting = [frames for frames in lengths if max(frame_indices(frames, 32)) < 32]
    if name in SHORTER:
        assert fitting == SHORTER[name]
    assert (model.frames in fitting) == (name not in SHORTER)


def test_frames_are_resized_and_the_same_each_time(whole_tgve):
    one, other = (TGVE(whole_tgve).read("dav-0", 16, 16, 16) for _ in range(2))
    assert one.frames.shape == (16, 16, 16, 3)
    assert one.content_hash == other.content_hash


def test_a_video_may_be_an_mp4(folder):
    frames = folder / "DAVIS_480p" / "480p_frames" / "dav-1"
    shutil.rmtree(frames)
    films = folder / "DAVIS_480p" / "480p_videos"
    films.mkdir()
    encode(films / "dav-1.mp4", numbered(32))
    assert numbers(TGVE(folder).read("dav-1", 16, 32, 48).frames) == list(range(0, 32, 2))


# ---- the table


def test_spaces_blank_rows_and_other_capitals_do_not_matter(folder):
    lines = made_lines()
    lines["DAVIS_480p"][0] = [f"  {cell}  " for cell in lines["DAVIS_480p"][0]]
    write_table(folder, lines, [f" {name.upper()}" for name in HEADER])
    path = folder / TABLE
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\r\n\r\n,,,\r\n"))
    described = TGVE(folder).describe("dav-0")
    assert (described.caption, described.edits[0].caption) == ("thing 0 moves", "thing 0 by style")


def test_a_column_of_another_name_is_an_error(folder):
    write_table(folder, made_lines(), [*HEADER[:2], "Style Change", *HEADER[3:]])
    assert "no column Style Change Caption" in refused(folder)


def test_another_folder_is_an_error(tmp_path):
    assert f"{TABLE}: cannot be read" in refused(tmp_path)
    (tmp_path / TABLE).write_bytes(b"")
    assert "no column Video name" in refused(tmp_path)


def test_a_line_without_a_source_or_a_caption_is_an_error(folder):
    lines = made_lines()
    lines["videvo_480p"][4][3] = " "
    write_table(folder, lines)
    assert "vid-4 has no Object Change Caption" in refused(folder)
    path = folder / TABLE
    write_table(folder, made_lines())
    path.write_text(path.read_text().replace("DAVIS Videos:", ""))
    assert "dav-0 " in refused(folder)
    path.write_text(path.read_text().replace("Videvo Videos:", "Vimeo Videos:").replace("dav-0", "x:", 1))
    assert "'x:' is none of the sources" in refused(folder)


def test_missing_lines_and_lines_that_come_twice_are_counted(folder):
    lines = made_lines()
    lines["youtube_480p"][1] = lines["youtube_480p"][0]
    del lines["DAVIS_480p"][5:7]
    write_table(folder, lines)
    said = refused(folder)
    assert "14 videos of DAVIS_480p" in said
    assert "names you-0 2 times" in said


# ---- the videos


def test_missing_videos_are_named_with_what_may_be_meant(folder):
    frames = folder / "videvo_480p" / "480p_frames"
    shutil.rmtree(frames / "vid-7")
    (frames / "vid-12").rename(frames / "vid-12a")
    said = refused(folder).splitlines()
    assert said[0].endswith("not the whole of LOVEU-TGVE-2023:")
    assert sorted(said[1:]) == [
        "videvo_480p: no 480p_frames/vid-12 and no 480p_videos/vid-12.mp4; there is vid-12a",
        "videvo_480p: no 480p_frames/vid-7 and no 480p_videos/vid-7.mp4; there is vid-12a",
    ]


def test_a_video_with_frames_missing_is_named(folder):
    (folder / "youtube_480p" / "480p_frames" / "you-2" / "00100.jpg").unlink()
    assert "you-2: has 127 frames" in refused(folder)


def test_many_problems_are_cut_short(folder):
    shutil.rmtree(folder / "youtube_480p")
    said = refused(folder).splitlines()
    assert (len(said), said[-1]) == (10, "... and 15 more")


def test_a_name_that_is_not_there_is_refused(whole_tgve):
    with pytest.raises(InputError, match=r"dav-1x.* dav-1"):
        TGVE(whole_tgve).read("dav-1x", 16, 24, 32)


@needs_data
def test_the_real_captions_are_read_from_the_layout(tmp_path):
    with (DATA / "tgve" / "captions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines: dict[str, list[list[str]]] = {source: [] for source in COUNTS}
    for row in rows:
        lines[row["source"]].append([row["video_name"], row["caption"], *(row[kind] for kind in KINDS)])
    reader = TGVE(make_tgve(tmp_path / "tgve", lines))
    assert reader.names() == [line[0] for of_source in lines.values() for line in of_source]
    for row in rows:
        described = reader.describe(row["video_name"])
        assert described.caption == row["caption"].strip()
        assert [edit.caption for edit in described.edits] == [row[kind].strip() for kind in KINDS]
        assert described.frames == int(row["num_frames"])
