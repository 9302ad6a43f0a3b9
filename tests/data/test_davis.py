"""DAVIS's folder with DiTFlow's prompts, in the two forms that these have."""

import json
import shutil
from pathlib import Path

import pytest

from motionexp.data.base import References
from motionexp.data.davis import DAVIS
from motionexp.errors import InputError
from tests.support.made_suites import DATA, make_davis, needs_data, numbers_of

PROMPTS = [
    {"video": "bear", "caption": "A bear", "subject": "A cat", "scene": "A car", "frame_range": [0, 72, 3]},
    {"video": "judo", "caption": "Judo", "subject": "Cats", "scene": "Cars", "frame_range": [8, 32, 1]},
    {"video": "cows", "caption": "Cows", "subject": "Dogs", "scene": "Ships", "frame_range": [0, 94, 4]},
    {"video": "bus", "caption": "A bus", "subject": "A ship", "scene": "A bird", "frame_range": [4, 34, 6]},
]
SCRIPT = """const prompts = {
    'bear': {
      'easy': 'A bear, walking: slowly',
      'medium': 'A cat',
      'hard': 'A car',
      'frame_range': '[0, 72, 3]'
    },
    'judo': { 'easy': 'Judo', 'medium': 'Cats', 'hard': 'Cars', 'frame_range': '[8, 32, 1]', },
};
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return make_davis(tmp_path_factory.mktemp("davis") / "DAVIS", PROMPTS)


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "DAVIS"))


def reader(folder: Path, prompts: str = "prompts.json") -> DAVIS:
    return DAVIS(folder, folder / prompts)


def test_a_sequence_has_its_own_caption_and_three_edits(whole):
    davis: References = reader(whole)
    assert davis.names() == ["bear", "judo", "cows", "bus"]
    described = davis.describe("bear")
    assert (described.caption, described.frames) == ("A bear", 24)
    kinds = {"caption": "A bear", "subject": "A cat", "scene": "A car"}
    assert [(edit.kind, edit.caption) for edit in described.edits] == [*kinds.items()]
    reference = davis.read("bear", 2, 48, 64)
    assert (reference.suite, reference.caption, reference.edits) == ("davis", "A bear", described.edits)
    assert (reference.frames.shape, reference.fps) == ((2, 48, 64, 3), 8)


@pytest.mark.parametrize(
    ("name", "frames", "indices", "scored"),
    [
        ("bear", 16, list(range(0, 48, 3)), None),
        ("bear", 17, list(range(0, 51, 3)), 16),
        ("bear", 24, list(range(0, 72, 3)), None),
        ("bear", 25, [*range(0, 72, 3), 69], 24),
        ("judo", 16, list(range(8, 24)), None),
        ("cows", 25, [*range(0, 94, 4), 92], 24),
        ("bus", 4, [4, 10, 16, 22], None),
        ("bear", 1, [0], None),
    ],
)
def test_frames_are_the_first_of_the_range(whole, name, frames, indices, scored):
    reference = reader(whole).read(name, frames, 16, 32)
    assert numbers_of(reference.frames) == indices
    assert reference.scored_frames == scored
    assert reader(whole).long_enough(name, frames)


def test_more_frames_than_the_range_has_are_refused(whole):
    assert not reader(whole).long_enough("bear", 26)
    for name, named in (("bear", r"bear: frames=49.* 24"), ("bears", r"'bears'.* bear")):
        with pytest.raises(InputError, match=named):
            reader(whole).read(name, 49, 16, 32)


def test_the_project_page_s_script_is_read_as_it_is(folder):
    (folder / "prompts.js").write_text(SCRIPT)
    davis = reader(folder, "prompts.js")
    assert davis.names() == ["bear", "judo"]
    assert davis.describe("bear").caption == "A bear, walking: slowly"
    assert numbers_of(davis.read("judo", 4, 16, 32).frames) == [8, 9, 10, 11]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"frame_range": None}, "bear: frame_range .*None"),
        ({"frame_range": [0, 72]}, r"bear: frame_range .*\[0, 72\]"),
        ({"frame_range": [72, 0, 3]}, r"bear: frame_range .*\[72, 0, 3\]"),
        ({"frame_range": [0, 80, 3]}, "bear: frame_range.* 78, .* 72"),
        ({"scene": " "}, "bear: .*scene"),
        ({"video": "bears"}, "bears"),
        ({"video": "judo"}, "'judo' stands 2 times"),
        ({"video": "JUDO"}, "'judo' stands 2 times"),
        ({"video": 3}, "the sequence 3 "),
        ({"video": "../bear"}, r"the sequence '\.\./bear'"),
        ({"video": "x" * 300}, "no folder .*xxx"),
        ({"caption": None}, "bear: the caption prompt is None"),
        ({"subject": 12}, "bear: the subject prompt is 12"),
        ({"subject": "12"}, "bear: the subject prompt is '12'"),
        ({"subject": "a  bear"}, "bear: two of its prompts"),
        *(
            ({"frame_range": value}, "bear: frame_range is ")
            for value in (
                *(
                    [-1, 72, 3],
                    [0, 72, 0],
                    [0, 72, -3],
                    [0, 72.0, 3],
                    [False, 72, 3],
                    [0, 72, 3, 1],
                    "2024-01-01",
                ),
                *(
                    "[0, 72",
                    "[0, 1:12, 3]",
                    "[0, 72, \u0663]",
                    [0, 10**30, 1],
                    [0, [72], 3],
                    {"start": 0},
                    72,
                ),
            )
        ),
    ],
)
def test_what_does_not_belong_together_is_named(folder, changes, named):
    (folder / "prompts.json").write_text(json.dumps([PROMPTS[0] | changes, *PROMPTS[1:]]))
    with pytest.raises(InputError, match=named):
        reader(folder).names()


def test_frames_of_another_resolution_are_refused(tmp_path):
    folder = make_davis(tmp_path / "DAVIS", PROMPTS, size=(108, 64))
    with pytest.raises(InputError, match=r"bear: .*64 x 108"):
        reader(folder).names()


def test_other_folders_and_files_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"JPEGImages/480p"):
        reader(tmp_path).names()
    with pytest.raises(InputError, match=r"prompts=.*none\.json"):
        reader(folder, "none.json").names()
    for text in ("[]", "just text", '{"a": 1}', "const prompts = {"):
        (folder / "prompts.json").write_text(text)
        with pytest.raises(InputError, match=r"data\.prompts="):
            reader(folder).names()


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("prompts.json", '[{"video": "bear", "caption": "a", "caption": "b"}]', "'caption' stands twice"),
        ("prompts.js", SCRIPT.replace("'judo'", "'bear'"), "line 8, .* the key bear stands twice"),
        ("prompts.js", SCRIPT.replace("'hard': 'A car'", "'hard': 'A car"), "line 6"),
        ("prompts.js", "const prompts = {bear: &a [*a]};", "alias"),
        ("prompts.js", SCRIPT.encode("utf-16"), "line 1: UTF-16"),
    ],
)
def test_damaged_prompts_are_named_with_their_place(folder, name, text, named):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=rf"data\.prompts=.*{name}.*{named}"):
        reader(folder, name).names()


@needs_data
def test_the_real_prompts_are_read(tmp_path):
    prompts = json.loads((DATA / "davis" / "prompts.json").read_text())
    davis = reader(make_davis(tmp_path / "DAVIS", prompts))
    assert davis.names() == [entry["video"] for entry in prompts]
    for entry in prompts:
        described = davis.describe(entry["video"])
        assert {edit.kind: edit.caption for edit in described.edits}.items() <= entry.items()
        assert described.frames == entry["n_frames"]
    # Pixels of a few: their numbers are the frames that the range names.
    for entry in prompts[::10]:
        numbers = numbers_of(davis.read(entry["video"], 3, 24, 32).frames)
        assert numbers == list(range(*entry["frame_range"])[:3])
