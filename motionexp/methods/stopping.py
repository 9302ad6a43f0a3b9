"""Signals that end a training of several ranks: all of them stop after the same step."""

import signal
import threading
from types import FrameType

from motionexp.diffusion import ranks
from motionexp.errors import Stopped

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class Stop:
    """Postpones signals to the end of a step, where all ranks learn of them.

    A rank that stopped at once would leave the others waiting for its gradients, and none could save. With
    one rank nothing is postponed.
    """

    def __init__(self) -> None:
        self._signum = 0
        self._frame: FrameType | None = None
        self._handlers = {number: signal.getsignal(number) for number in ENDING}
        self._is_needed = ranks.size() > 1 and threading.current_thread() is threading.main_thread()

    def postpone(self) -> None:
        """Only note a signal that would end the process through Python, from now on."""
        for number, handler in self._handlers.items():
            if self._is_needed and callable(handler):
                signal.signal(number, self._note)

    def end(self) -> None:
        """Return to the handlers that were there before."""
        for number, handler in self._handlers.items():
            if self._is_needed and callable(handler):
                signal.signal(number, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if not self._signum:
            self._signum, self._frame = signum, frame

    def check(self) -> None:
        """Do what a signal asks for that came to any rank; all ranks call it.

        Raises:
            KeyboardInterrupt, Stopped: or what the process's own handler raises.
        """
        signum = ranks.largest(self._signum)
        if not signum:
            return
        handler = self._handlers[signal.Signals(signum)]
        if self._signum == signum and callable(handler):
            handler(signum, self._frame)
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        raise Stopped(signum)
