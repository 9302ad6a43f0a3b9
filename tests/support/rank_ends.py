"""How ranks end in the tests, without torch, whose import takes eight seconds in each of them."""

import os
import signal
import time

from motionexp.config.schema import JobConfig
from motionexp.errors import InputError


def number_of(cfg: JobConfig, suffix: str) -> str:
    return os.environ["RANK"] + suffix


def refuse_on_rank_1(cfg: JobConfig) -> None:
    if os.environ["RANK"] == "1":
        raise InputError("rank 1 says no")
    time.sleep(60)


def killed_on_rank_1(cfg: JobConfig) -> None:
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def terminated_on_rank_1(cfg: JobConfig) -> None:
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
