"""Runs the commands beside jobs. No torch before a command needs it."""

from collections.abc import Sequence

from motionexp.cli import help
from motionexp.config.checks import check_device
from motionexp.config.export import load_export
from motionexp.config.prediction import load_prediction
from motionexp.config.score import load_score
from motionexp.jobs.card import card
from motionexp.jobs.dashboard import dashboard
from motionexp.jobs.pages.report.command import report
from motionexp.jobs.pages.study.command import study
from motionexp.jobs.pages.ui.command import ui
from motionexp.jobs.status import status
from motionexp.jobs.submission import submission
from motionexp.jobs.sweep_table import table as table_of
from motionexp.jobs.waiting import loading_libraries

OF_WORDS = {
    "card": card,
    "dashboard": dashboard,
    "report": report,
    "submission": submission,
    "table": table_of,
    "ui": ui,
}
OF_ARGUMENTS = {"status": status, "study": study}
"""Commands with flags, or with words that are no settings."""


def run_command(command: str, words: Sequence[str]) -> None:
    """Run one of the commands that take settings.

    Raises:
        InputError: as the command.
    """
    match command:
        case "list":
            print(help.listed(words))
        case "score":
            cfg = load_score(words)
            check_device(cfg.device)
            from motionexp.jobs.external import score_external  # imports torch only if it finds the videos

            score_external(cfg)
        case "export":
            exported = load_export(words)
            with loading_libraries():
                from motionexp.jobs.export import export

            export(exported)
        case "predict":
            predicted = load_prediction(words)
            with loading_libraries():
                from motionexp.jobs.prediction import predict_job

            predict_job(predicted)
        case _:
            OF_WORDS[command](words)
