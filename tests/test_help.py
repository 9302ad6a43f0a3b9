"""What `--help` prints."""

from motionexp.cli.help import USAGE, WIDTH, help_text, wrapped
from motionexp.config.schema import JobConfig, TrainerConfig
from motionexp.config.settings import settings_in


def test_it_fits_80_columns_and_names_every_setting():
    lines = help_text().splitlines()
    words = {line.split()[0].partition("=")[0] for line in lines if line.startswith("  ")}
    assert max(map(len, lines)) <= WIDTH == 80
    assert {*settings_in(JobConfig)} - {"model", "method", "data", "scoring", "trainer"} <= words
    assert {f"trainer.{name}" for name in settings_in(TrainerConfig)} <= words
    # What one copies is whole.
    assert all(any(f"python run.py {command}".rstrip() in line for line in lines) for command, _ in USAGE)


def test_a_text_is_wrapped_between_words_and_its_commands_are_whole():
    command = "`python run.py model=latte dry_run=true data=tgve data.path=DIR output=FOLDER references=76`"
    lines = wrapped(f"{'word ' * 30}{command} {'word ' * 30}").splitlines()
    assert any(command in line for line in lines)
    assert all(len(line) <= WIDTH or line.strip() == command for line in lines)
