"""Commands that select rows refuse a value that nothing has, alone or in a list, and list what there is."""

import pytest
from rich.console import Console

from motionexp.cli import main
from motionexp.errors import InputError
from motionexp.jobs.pages.report.command import report
from motionexp.jobs.pages.study.command import study
from motionexp.jobs.status import read_sweeps
from motionexp.jobs.submission import submission
from motionexp.jobs.sweep_table import table
from motionexp.results.runs import print_runs
from motionexp.results.selection import has_value
from tests.support.made_output import REFERENCES, write_output
from tests.support.made_rows import made_row
from tests.support.made_sweeps import planned, write_cell, write_plan


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Results at tau 500 and 700, and of the base model, whose tau is 1000."""
    folder = tmp_path_factory.mktemp("made") / "out"
    write_output(folder)
    return folder


@pytest.mark.parametrize("values", ["12345", "500,12345", "12345,700", "500,700,12345"])
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (table, ["output={output}"]),
        (report, ["output={output}", "folder={new}"]),
        (study, ["output={output}", "folder={new}"]),
        (submission, ["samples={output}", "folder={new}", "layout=videos"]),
    ],
)
def test_a_value_that_no_row_has_is_named(command, words, values, output, tmp_path):
    words = [word.format(output=output, new=tmp_path / "new") for word in words]
    with pytest.raises(InputError, match=rf"^tau={values}: .* 12345;.* 500, 700"):
        command([*words, f"tau={values}"])
    with pytest.raises(InputError, match=r"^refrence=.*reference"):
        command([*words, "refrence=a,b"])
    assert not (tmp_path / "new").exists()


def test_a_word_selects_of_what_the_words_before_it_select(output):
    with pytest.raises(InputError, match=r"^model="):
        table([f"output={output}", "model=tiny_unet3d", "tau=500,700"])
    with pytest.raises(InputError, match=r"^tau=500: .* 1000$"):
        table([f"output={output}", "method=base", "tau=500"])


@pytest.mark.parametrize(
    ("select", "problem"),
    [
        ({"tau": "700,333"}, "^tau=700,333: .* 333;.* 500, 700, 1000"),
        ({"state": "faild"}, "^state=faild: .*failed"),
        ({"tau": "700", "state": "failed"}, "^state=failed: .*done"),
        ({"tua": "700"}, "^tua=.* tau"),
    ],
)
def test_list_runs_names_what_no_run_has(select, problem, output):
    with pytest.raises(InputError, match=problem):
        print_runs(Console(), output, select)


@pytest.mark.parametrize("place", ["{output}/sweeps/0a1b2c3d4e5f", ".", "../0a1b2c3d4e5f"])
def test_list_runs_lists_the_cells_of_one_sweep(place, tmp_path, monkeypatch, capsys):
    for number in (0, 1, 2):
        write_cell(tmp_path, number, "done")
    sweep = write_plan(tmp_path, [planned(0, 0), planned(2, 0), planned(3, 0)]).parent
    monkeypatch.chdir(sweep)
    assert main(["list", "runs", f"output={place.format(output=tmp_path)}"]) == 0
    shown = capsys.readouterr().out
    assert [f"cell-{number}" in shown for number in range(4)] == [True, False, True, False]
    assert main(["list", "runs", f"output={place.format(output=tmp_path)}", "reference=reference-1"]) == 2
    assert "reference-1" in capsys.readouterr().err


def test_list_runs_says_which_folder_it_takes(tmp_path, capsys):
    write_cell(tmp_path, 0, "done")
    waiting = write_plan(tmp_path, [planned(1, 0)]).parent
    assert main(["list", "runs", f"output={tmp_path / 'shapes' / 'tiny_latte'}"]) == 2
    assert "OUTPUT/sweeps/ID" in capsys.readouterr().err
    assert main(["list", "runs", f"output={waiting}"]) == 2
    assert "no cell of the sweep has begun" in capsys.readouterr().err


def test_list_runs_takes_states_that_no_run_has_beside_one_that_some_have(output, capsys):
    print_runs(Console(width=200), output, {"tau": "700", "state": "failed,done"})
    assert REFERENCES[0] in capsys.readouterr().out


def test_a_value_with_a_comma_is_one_value_where_a_row_has_it():
    row = made_row(edit_caption="a dog, running")
    assert has_value(row, "edit_caption", "a dog, running")
    assert not has_value(row, "edit_caption", "a dog, sleeping")


def test_status_reads_the_plan_of_a_sweep_s_folder(output):
    sweep = write_plan(output, [planned(0, 0)], name="abcdef012345").parent
    (status,) = read_sweeps(sweep)
    assert sum(status.counts.values()) == 1
