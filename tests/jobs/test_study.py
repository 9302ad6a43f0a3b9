"""`study`: questionnaires that are blind and balanced, and what they refuse."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from motionexp.config.study import StudyConfig, load_study
from motionexp.errors import InputError
from motionexp.jobs.pages.study.command import study
from motionexp.jobs.pages.study.questionnaires import ELSE, REFERENCE, STILL, draw_plan
from motionexp.jobs.pages.study.samples import BASE, find_candidates
from motionexp.results.rows import as_json, read_rows
from tests.support.made_study import write_samples

METHODS = ["tau=0", "tau=400", "tau=700"]


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    """Finished samples of three windows and the base model: four references, two edits, two seeds."""
    return write_samples(tmp_path_factory.mktemp("study") / "outputs", base=True)


@pytest.fixture(scope="module")
def folder(output) -> Path:
    """A study of the second paper's form: six people, five pages and a check."""
    folder = output.parent / "study"
    study([f"folder={folder}", f"output={output}", "people=6", "pages=5", "contact=me <a@b.c>"])
    return folder


def key_of(folder: Path) -> dict:
    return json.loads((folder / "key.json").read_text())


def questionnaire(folder: Path, code: str) -> dict:
    text = (folder / "site" / "questionnaires" / f"{code}.js").read_text()
    return json.loads(text.removeprefix("window.QUESTIONNAIRE = ").removesuffix(";\n"))


def candidates(output: Path, outputs: int = 2, **select: str):
    return find_candidates(output, select, None, base_model=False, outputs=outputs)


def test_a_page_shows_what_the_key_says_and_its_files_name_no_method(folder, output):
    key = key_of(folder)
    assert (key["methods"], len(key["questionnaires"]), key["seed"]) == (METHODS, 6, 0)
    videos = {path.name: path.read_bytes() for path in (folder / "site" / "videos").iterdir()}
    of_method = {f"tau={tau}": (output / f".{tau}.mp4").read_bytes() for tau in (0, 400, 700)}
    for code, pages in key["questionnaires"].items():
        shown = questionnaire(folder, code)
        assert [page["caption"] for page in shown["pages"]] == [
            key["pairs"][page["pair"]]["caption"] for page in pages
        ]
        for page, entry in zip(shown["pages"], pages, strict=True):
            assert page["reference"] in videos
            if not entry["check"]:
                assert sorted(entry["columns"]) == METHODS
                contents = [[videos[name] for name in column] for column in page["columns"]]
                assert contents == [[of_method[method]] * 2 for method in entry["columns"]]
    site = "".join(path.read_text() for path in (folder / "site").rglob("*.*") if path.suffix != ".mp4")
    assert not re.search(r"tau|lora|tiny_latte|seed", site)
    assert not re.search("|".join(Path(row.sample_file).parts[2] for row in read_rows(output)), site)


def test_a_questionnaire_has_different_references_in_random_order_of_methods(folder):
    key, orders, places = key_of(folder), set(), set()
    for pages in key["questionnaires"].values():
        about = [page for page in pages if not page["check"]]
        assert len({page["pair"] for page in about}) == len(about) == 5
        # Four references for five pages: all of them, and one with its other edit.
        assert len({key["pairs"][page["pair"]]["reference"] for page in about}) == 4
        orders |= {tuple(page["columns"]) for page in about}
        (check,) = (place for place, page in enumerate(pages) if page["check"])
        assert check > 0
        places.add(check)
        assert sorted(pages[check]["columns"]) == sorted([REFERENCE, ELSE, STILL])
    assert len(orders) == 6, "all orders of three methods occur in thirty pages"
    assert len(places) > 1
    uses = Counter(page["pair"] for pages in key["questionnaires"].values() for page in pages)
    assert max(uses.values()) - min(uses.values()) <= 3, uses  # thirty pages and six checks of eight pairs


def test_equal_seeds_give_equal_questionnaires_and_other_seeds_others(output):
    def drawn(seed: int, **changes):
        cfg = StudyConfig(people=4, pages=3, seed=seed, **changes)
        return draw_plan(cfg, candidates(output), 2)

    assert drawn(1) == drawn(1) != drawn(2)
    assert len(drawn(1, pairs=3).seeds) == 3
    # A pair has the same samples for all people.
    assert {seeds for seeds in drawn(1).seeds.values()} == {(0, 1)}


def test_the_base_model_is_a_method_only_where_it_is_asked_for(output):
    with_base = find_candidates(output, {}, None, base_model=True, outputs=1)
    assert with_base.methods == (BASE, *METHODS)
    assert candidates(output, tau="0,700").methods == ("tau=0", "tau=700")
    pair = next(iter(with_base.shown))
    scores = with_base.shown[pair]["tau=700"].mean_scores([0, 1])
    assert scores == pytest.approx(
        {
            "motion_fidelity": 0.905,
            "nuisance_similarity": -0.905,
            "frame_consistency": 0.5,
            "foreground_share": 0.5,
        }
    )


def rewritten(output: Path, pattern: str, *changes: dict) -> None:
    """Replace each row of some cells by a row for each of the changes."""
    for path in output.glob(f"*/*/{pattern}/rows.jsonl"):
        rows = [
            as_json(row)
            | {"score_id": f"{row.score_id} {number}", "sample_id": f"{row.sample_id} {number}"}
            | change
            for row in read_rows(path)
            for number, change in enumerate(changes)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_several_models_are_told_apart_and_of_training_seeds_the_first_is_shown(tmp_path):
    output = write_samples(tmp_path / "outputs", count=1, edits=1)
    rewritten(output, "*", {"training_seed": 1}, {"training_seed": 0})
    drawn = candidates(output)
    assert drawn.methods == ("tau=0", "tau=400", "tau=700")
    rows = [
        row for shown in drawn.shown.values() for entry in shown.values() for row in entry.samples.values()
    ]
    assert {row.training_seed for row in rows} == {0}
    rewritten(output, "700-*", {"model": "tiny_unet3d"})
    names = ("model=tiny_latte tau=0", "model=tiny_latte tau=400", "model=tiny_unet3d tau=700")
    assert candidates(output).methods == names


def test_instructions_are_a_page_to_print_and_links_are_one_a_person(folder):
    text = (folder / "site" / "instructions.html").read_text()
    assert "me &lt;a@b.c&gt;" in text
    assert "There are 6 pages" in text
    links = (folder / "links.txt").read_text().splitlines()
    assert [line.split()[0] for line in links] == [*key_of(folder)["questionnaires"]]
    assert all(line.split()[1].endswith(f"/site/index.html#{line.split()[0]}") for line in links)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "folder= is missing"),
        (["folder={new}", "people=0"], "people=0"),
        (["folder={new}", "people=many"], "people=many"),
        (["folder={new}", "form=likert"], "form=likert"),
        (["folder={new}", "base_model=1"], "base_model=1"),
        (["folder={output}"], "it is not empty"),
        (["folder={new}", "output={new}"], "no such rows file or folder"),
        (["folder={new}", "output={output}", "tau=3"], "tau=3"),
        (["folder={new}", "output={output}", "tua=0"], "did you mean tau"),
        (["folder={new}", "output={output}", "by=tua"], "by=tua"),
        (["folder={new}", "output={output}", "tau=0"], "1 methods"),
        (["folder={new}", "output={output}", "by=rank"], "two samples of rank=4.*differ in tau"),
        (["folder={new}", "output={output}", "pages=9"], "pages=9: there are 8"),
        (["folder={new}", "output={output}", "pairs=9"], "pairs=9: there are 8"),
        (["folder={new}", "output={output}", "pairs=3", "pages=4"], "pages=4: there are 3"),
        (["folder={new}", "notasetting"], "notasetting"),
        (["folder={new}", "-m"], "-m"),
        (["folder={new}", "people=3", "people=4"], "people= is given 2 times"),
        (["folder="], "the path is empty"),
    ],
)
def test_wrong_words_are_named_and_nothing_is_written(output, tmp_path, words, named):
    paths = {"new": tmp_path / "new", "output": output}
    with pytest.raises(InputError, match=named):
        study([word.format(**paths) for word in words])
    assert not (tmp_path / "new").exists()


def test_one_sample_an_edit_is_too_few_for_two_outputs(tmp_path):
    output = write_samples(tmp_path / "outputs", count=1, seeds=1, edits=1)
    with pytest.raises(InputError, match=r"no edit of a reference has 2 samples.*seeds=2"):
        study([f"folder={tmp_path / 'new'}", f"output={output}", "pages=1"])
    # The other forms show one.
    study([f"folder={tmp_path / 'new'}", f"output={output}", "pages=1", "people=1", "form=vmc"])
    assert key_of(tmp_path / "new")["form"] == "vmc"


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ({"data": {"_target_": "os.system", "command": "touch pwned"}}, "os.system"),
        ({"data": {"_target_": "motionexp.data.clip.Clip"}}, "data.path"),
        ({"frames": "many"}, "whole numbers"),
        ({"model": {}}, "no settings of a job"),
        ({"data": {"_target_": "motionexp.data.shapes.splits.ShapesReferences", "chroma": 0.5}}, "another"),
    ],
)
def test_a_cell_whose_settings_read_no_reference_is_named(tmp_path, damage, named):
    output = write_samples(tmp_path / "outputs", count=1, seeds=2, edits=1)
    for path in output.rglob("config.yaml"):
        path.write_text(
            json.dumps(json.loads(json.dumps(__import__("yaml").safe_load(path.read_text()))) | damage)
        )
    with pytest.raises(InputError, match=named):
        study([f"folder={tmp_path / 'new'}", f"output={output}", "pages=1", "people=1"])
    assert not Path("pwned").exists()
    assert not (tmp_path / "new" / "key.json").exists()


@pytest.mark.parametrize("file", ["../secret.mp4", "/etc/passwd", "gone.mp4"])
def test_a_row_that_names_another_file_is_refused(tmp_path, file):
    output = write_samples(tmp_path / "outputs", count=1, seeds=2, edits=1)
    for path in output.rglob("rows.jsonl"):
        rows = [as_json(row) | {"sample_file": file} for row in read_rows(path)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    with pytest.raises(InputError, match=r"sample_file|is not there"):
        study([f"folder={tmp_path / 'new'}", f"output={output}", "pages=1", "people=1"])


def test_captions_are_data_and_no_markup(tmp_path):
    output = write_samples(tmp_path / "outputs", count=1, seeds=2, edits=1)
    hostile = "</script><script>alert(1)</script> \u2028 'a' \"b\""
    for path in output.rglob("rows.jsonl"):
        rows = [as_json(row) | {"edit_caption": hostile} for row in read_rows(path)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "new"
    study([f"folder={folder}", f"output={output}", "pages=1", "people=1"])
    (code,) = key_of(folder)["questionnaires"]
    assert questionnaire(folder, code)["pages"][0]["caption"] == hostile
    # The page writes texts as text alone.
    script = (folder / "site" / "study.js").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)


def test_settings_have_the_types_of_their_lines():
    cfg, select = load_study(
        ["folder=/tmp/there-is-none", "people=3", "pairs=null", "base_model=true", "tau=0"]
    )
    assert (cfg.people, cfg.pairs, cfg.base_model, select) == (3, None, True, {"tau": "0"})
