"""What the shell's completion of the command answers."""

import pytest

from motionexp.cli import main


def answer(line: str, monkeypatch, capsys) -> list[str]:
    monkeypatch.setenv("COMP_LINE", line)
    assert main(["-sc", "query=bash"]) == 0
    out, err = capsys.readouterr()
    assert not err
    return out.split()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("python run.py exp", ["export"]),
        ("python run.py repo", ["report", "report="]),
        ("motionexp status ", ["output=", "--watch", "--help"]),
        ("python run.py study ta", ["tally"]),
        ("python run.py export fo", ["format=", "folder="]),
        ("python run.py predict model=tiny_c", ["model=tiny_cogvideox"]),
        ("python run.py -m model=tiny_c", ["model=tiny_cogvideox"]),
        ("python run.py method=lora method.ra", ["method.rank="]),
        ('python run.py caption="a dog is" mod', []),
    ],
)
def test_a_line_is_completed(line, words, monkeypatch, capsys):
    assert answer(line, monkeypatch, capsys) == words


def test_the_script_for_the_shell_is_printed_alone(capsys):
    assert main(["--shell-completion", "install=bash"]) == 0
    assert capsys.readouterr().out.startswith("export _HYDRA_OLD_COMP=")
