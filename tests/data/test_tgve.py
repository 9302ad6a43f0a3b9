"""TGVE's folder as it unzips: its table, its videos, and which frames are taken."""

import csv
import shutil

import pytest

from motionexp.config.compose import load
from motionexp.config.options import options
from motionexp.data.base import References
from motionexp.data.tgve import TABLE, TGVE, frame_indices
from motionexp.errors import InputError
from tests.support import made_suites
from tests.support.made_suites import COUNTS, DATA, KINDS, LENGTHS, linked, made_lines, needs_data, numbers_of
from tests.support.made_videos import encode, numbered, numbers


@pytest.fixture
def folder(whole_tgve, tmp_path):
    return linked(whole_tgve, tmp_path / "tgve")


def made_row(number: int) -> str:
    return ",".join(made_lines()["DAVIS_480p"][number])


def refused(folder) -> str:
    with pytest.raises(InputError) as caught:
        TGVE(folder).names()
    return str(caught.value)


def test_it_has_76_references_and_304_edits(whole_tgve):
    reader: References = TGVE(whole_tgve)
    described = [reader.describe(name) for name in reader.names()]
    assert (len(described), sum(len(description.edits) for description in described)) == (76, 304)
    assert reader.names() == [line[0] for lines in made_lines().values() for line in lines]
    assert described[0].caption == "thing 0 moves"
    edits = [(kind, f"thing 0 by {kind}") for kind in KINDS]
    assert [(edit.kind, edit.caption) for edit in described[0].edits] == edits
    lengths = [LENGTHS[source] for source, count in COUNTS.items() for _ in range(count)]
    assert [description.frames for description in described] == lengths


@pytest.mark.parametrize(
    ("frames", "indices", "scored", "fps"),
    [
        (16, list(range(0, 32, 2)), None, 8),
        (17, [*range(0, 32, 2), 31], 16, 8),
        (24, [index for index in range(32) if index % 4 != 3], None, 12),
        (32, list(range(32)), None, 16),
        (33, [*range(32), 31], 32, 16),
        (1, [0], None, 0.5),
    ],
)
def test_two_seconds_are_the_first_32_frames(whole_tgve, frames, indices, scored, fps):
    reference = TGVE(whole_tgve).read("dav-3", frames, 24, 32)
    assert numbers_of(reference.frames) == indices
    assert (reference.scored_frames, reference.fps, reference.suite) == (scored, fps, "tgve")
    assert reference.strata == {"source": "DAVIS_480p"}


@pytest.mark.parametrize(("frames", "indices"), [(17, [*range(0, 32, 2), 32]), (128, [*range(128)])])
def test_long_videos_have_more_to_give(whole_tgve, frames, indices):
    assert numbers_of(TGVE(whole_tgve).read("you-0", frames, 24, 32).frames) == indices


def test_how_long_a_video_is_is_known_before_it_is_read(whole_tgve):
    reader = TGVE(whole_tgve)
    assert [reader.long_enough("dav-0", frames) for frames in (16, 33, 34, 81)] == [True, True, False, False]
    assert [reader.long_enough("you-0", frames) for frames in (81, 128, 129)] == [True, True, False]
    with pytest.raises(InputError, match=r"vid-0: 49 .* 32 "):
        reader.read("vid-0", 49, 24, 32)
    with pytest.raises(InputError, match=r"dav-1x.* dav-1"):
        reader.read("dav-1x", 16, 24, 32)


# What docs/data.md lists: lengths for the short videos, of models whose default is longer.
WAN = ("wan_1_3b", "wan_14b", "wan2_2_14b", "wan_i2v_14b", "wan2_2_i2v_14b")
SHORTER = {name: [17, 21, 25, 29, 33] for name in WAN} | {"cogvideox_5b_i2v": []}
SHORTER |= {"ltx": [9, 17, 25, 33], "hunyuan": [5, 9, 13, 17, 21, 25, 29, 33]}


@pytest.mark.parametrize("name", [name for name in options("model") if not name.startswith("tiny_")])
def test_every_real_model_has_a_length_that_the_short_videos_have(name):
    model = load([f"model={name}"]).model
    low, high = model.frame_range or (model.frames, model.frames)
    lengths = range(low, high + 1, model.frame_step)
    fitting = [frames for frames in lengths if max(frame_indices(frames, 32)) < 32]
    assert fitting == SHORTER.get(name, fitting)
    assert (model.frames in fitting) == (name not in SHORTER)


def test_frames_are_resized_and_the_same_each_time(whole_tgve):
    first, second = (TGVE(whole_tgve).read("dav-0", 16, 16, 16) for _ in range(2))
    assert first.frames.shape == (16, 16, 16, 3)
    assert first.content_hash == second.content_hash


def test_a_video_may_be_an_mp4(folder):
    shutil.rmtree(folder / "DAVIS_480p" / "480p_frames" / "dav-1")
    (folder / "DAVIS_480p" / "480p_videos").mkdir()
    encode(folder / "DAVIS_480p" / "480p_videos" / "dav-1.mp4", numbered(32))
    assert numbers(TGVE(folder).read("dav-1", 16, 32, 48).frames) == list(range(0, 32, 2))


# ---- the table


def test_spaces_blank_rows_and_other_capitals_do_not_matter(folder):
    lines = made_lines()
    lines["DAVIS_480p"][0] = [f"  {cell}  " for cell in lines["DAVIS_480p"][0]]
    made_suites.write_table(folder, lines, [f" {name.upper()}" for name in made_suites.HEADER])
    path = folder / TABLE
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\r\n\r\n,,,\r\n"))
    described = TGVE(folder).describe("dav-0")
    assert (described.caption, described.edits[0].caption) == ("thing 0 moves", "thing 0 by style")


def test_a_column_of_another_name_is_an_error(folder):
    made_suites.write_table(
        folder, made_lines(), [*made_suites.HEADER[:2], "Style Change", *made_suites.HEADER[3:]]
    )
    assert "no column Style Change Caption" in refused(folder)


def test_another_folder_is_an_error(tmp_path):
    assert f"{TABLE}: no such file; data.path=" in refused(tmp_path)
    (tmp_path / TABLE).write_bytes(b"")
    assert "no column Video name" in refused(tmp_path)


def test_a_line_without_a_source_or_a_caption_is_an_error(folder):
    lines = made_lines()
    lines["videvo_480p"][4][3] = " "
    made_suites.write_table(folder, lines)
    assert "vid-4 has no Object Change Caption" in refused(folder)
    path = folder / TABLE
    made_suites.write_table(folder, made_lines())
    path.write_text(path.read_text().replace("DAVIS Videos:", ""))
    assert "dav-0 " in refused(folder)
    path.write_text(path.read_text().replace("Videvo Videos:", "Vimeo Videos:").replace("dav-0", "x:", 1))
    assert "'x:' is none of the sources" in refused(folder)


def test_missing_lines_and_lines_that_come_twice_are_counted(folder):
    lines = made_lines()
    lines["youtube_480p"][1] = lines["youtube_480p"][0]
    del lines["DAVIS_480p"][5:7]
    made_suites.write_table(folder, lines)
    error = refused(folder)
    assert "14 videos of DAVIS_480p" in error
    assert "names you-0 2 times" in error


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("dav-1,thing 1 moves", "dav-1,a thing, moving"), "line 4: 8 cells, but 7 in the first row"),
        (("dav-1,thing 1 moves,", "dav-1,"), "line 4: 6 cells, but 7 in the first row"),
        (("dav-1,thing 1 moves", ",thing 1 moves"), "line 4: Video name is ''"),
        (("dav-1,thing 1 moves", "a/b,thing 1 moves"), "line 4: Video name is 'a/b'"),
        (("dav-1,thing 1 moves", "dav-1,7"), "line 4: dav-1: Our GT caption is '7'"),
        (("Youtube Videos:", "DAVIS videos:"), "line 20: the heading 'DAVIS videos:' stands twice"),
        (("Youtube Videos:\r\n", ""), "39 videos of DAVIS_480p"),
        (("Style Change Caption", "Object Change Caption"), "no column Style Change Caption"),
        (("Caption,Source", "Caption,Style change caption"), "two columns are called Style Change Caption"),
        (("thing 1 by style", "thing 1 moves"), "line 4: dav-1: Style Change Caption repeats Our GT caption"),
        (
            ("thing 1 by object", "Thing 1 by style"),
            "line 4: dav-1: Object Change Caption repeats Style Change",
        ),
        (("dav-1,thing 1 moves", '"dav-1,thing 1 moves'), "line 4: "),
        (("dav-1,", "DAV-0,"), "names DAV-0 2 times"),
        ((made_row(1), made_row(0).replace("dav-0", "dav-1")), "dav-1 has the edits of dav-0"),
    ],
)
def test_shifted_copied_and_doubled_cells_are_named(folder, change, named):
    path = folder / TABLE
    text = path.read_bytes().decode()
    assert change[0] in text
    path.write_bytes(text.replace(*change, 1).encode())
    assert named in refused(folder)


def test_the_order_of_the_columns_is_free(folder):
    order = [0, 5, 4, 3, 2, 1]
    rows = {
        source: [[line[index] for index in order] for line in lines] for source, lines in made_lines().items()
    }
    made_suites.write_table(folder, rows, [*(made_suites.HEADER[index] for index in order), "Source"])
    described = TGVE(folder).describe("dav-1")
    assert described.caption == "thing 1 moves"
    assert [edit.caption for edit in described.edits] == [f"thing 1 by {kind}" for kind in KINDS]


# ---- the videos


def test_missing_videos_are_named_with_what_may_be_meant(folder):
    frames = folder / "videvo_480p" / "480p_frames"
    shutil.rmtree(frames / "vid-7")
    (frames / "vid-12").rename(frames / "vid-12a")
    (folder / "youtube_480p" / "480p_frames" / "you-2" / "00100.jpg").unlink()
    lines = refused(folder).splitlines()
    assert "you-2: has 127 frames" in lines[1]
    for line, name in zip(lines[2:], ("vid-7", "vid-12"), strict=True):
        assert f"no 480p_frames/{name} and no 480p_videos/{name}.mp4; there is vid-12a" in line


def test_many_problems_are_cut_short(folder):
    shutil.rmtree(folder / "youtube_480p")
    lines = refused(folder).splitlines()
    assert (len(lines), lines[-1]) == (10, "... and 15 more")


@needs_data
def test_the_real_captions_are_read_from_the_layout(tmp_path):
    rows = list(csv.DictReader((DATA / "tgve" / "captions.csv").read_text().splitlines()))
    lines: dict[str, list[list[str]]] = {source: [] for source in COUNTS}
    for row in rows:
        lines[row["source"]].append([row["video_name"], row["caption"], *(row[kind] for kind in KINDS)])
    reader = TGVE(made_suites.make_tgve(tmp_path / "tgve", lines))
    for row in rows:
        described = reader.describe(row["video_name"])
        assert described.caption == row["caption"].strip()
        assert [edit.caption for edit in described.edits] == [row[kind].strip() for kind in KINDS]
        assert described.frames == int(row["num_frames"])
