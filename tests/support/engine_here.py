"""An engine of launchers that starts no process."""

import os
from contextlib import redirect_stderr

from motionexp.jobs.outcomes import Outcome
from motionexp.jobs.sweep_folder import VARIABLE


class EngineHere:
    """An engine that runs tasks one after the other where it is."""

    at_once = 2

    def __init__(self, *_) -> None:
        self.order: list[int] = []

    def attached(self, folder):
        return []

    def run(self, folder, tasks, work, on_end):
        for task in tasks:
            self.order.append(task.number)
            os.environ[VARIABLE] = str(folder.path)
            log = folder.log(task)
            try:
                with log.open("a") as output, redirect_stderr(output):
                    code = work(task.commands)
            finally:
                del os.environ[VARIABLE]
            on_end(task, Outcome.of_code(code, str(log)))

    def close(self):
        pass
