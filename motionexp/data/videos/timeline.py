"""When each frame of a video file is on screen, and which frames that makes."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import count as whole_numbers
from itertools import pairwise
from math import ceil


@dataclass(frozen=True)
class Timeline:
    """The frames that a player shows, in the order of their times.

    Attributes:
        tick: seconds of one unit of all times. Times in a file are rounded to ticks.
        times: when each frame begins, in ticks. The first one begins the clip.
        last_duration: how long the last frame is shown, in ticks.
        keyframes: (index, time to seek in ticks) of later frames from which decoding can start, ascending.
        hidden: encoded frames that are not shown: before a cut, or used by other frames alone.
        promised: how many encoded frames the header says there are; 0: it says nothing.
    """

    tick: Fraction
    times: Sequence[int]
    last_duration: int
    keyframes: Sequence[tuple[int, int]]
    hidden: int
    promised: int

    @cached_property
    def shortest(self) -> int:
        """The shortest time between two frames, in ticks."""
        return min((after - before for before, after in pairwise(self.times)), default=self.last_duration)

    @property
    def seconds(self) -> Fraction:
        """From the begin of the first frame to the end of the last."""
        return (
            (self.times[-1] - self.times[0] + self.last_duration) * self.tick if self.times else Fraction(0)
        )

    @property
    def rate(self) -> Fraction | None:
        """Mean frames per second; None for fewer than two times."""
        if len(set(self.times)) < 2:
            return None
        # From first to last time, over all frames: a variable rate has no other mean.
        return (len(self.times) - 1) / ((self.times[-1] - self.times[0]) * self.tick)

    def strided(self, start: float, stride: int) -> range:
        """Indices of every `stride`-th frame from `start` seconds on."""
        first = bisect_left(self.times, self._ticks(start) - Fraction(1, 2))
        return range(first, len(self.times), stride)

    def sampled(self, start: float, fps: float) -> Iterator[int]:
        """The index of the frame on screen at each of start + k / fps, while there is one.

        The next frame counts as on screen from half of the shortest time between two frames before it begins:
        at a constant rate the nearest frame is taken, and a frame that is held is held to its end.
        """
        last = len(self.times) - 1
        for k in whole_numbers() if self.times else ():
            moment = self._ticks(Fraction(start) + k / Fraction(fps))
            if moment >= self.times[-1] + self.last_duration - Fraction(1, 2):
                return
            index = max(0, bisect_right(self.times, moment) - 1)
            if index < last:
                begin, after = self.times[index], self.times[index + 1]
                # Rounding makes the intervals of a constant rate differ by one tick.
                lead = Fraction(min(after - begin, self.shortest + 1), 2)
                index += after - moment < lead
            yield index

    def sampled_count(self, start: float, fps: float) -> int:
        """How many indices `sampled` gives."""
        end = self.seconds - self.tick / 2 - Fraction(start)
        return max(0, ceil(end * Fraction(fps))) if self.times else 0

    def keyframe(self, index: int) -> tuple[int, int | None]:
        """Where decoding of the frame of an index can start; (0, None): at the begin of the file."""
        before = bisect_right(self.keyframes, index, key=lambda pair: pair[0])
        return self.keyframes[before - 1] if before else (0, None)

    def described(self) -> str:
        """How many frames there are, and how many the header promised where those are more."""
        count, listed = len(self.times), len(self.times) + self.hidden
        # Headers may be off by one frame in a whole file.
        more = (
            f" (its header says {self.promised}: it may be cut short)" if self.promised > listed + 1 else ""
        )
        return f"{count} frame{'' if count == 1 else 's'} in {float(self.seconds):.3g} s{more}"

    def _ticks(self, seconds: float | Fraction) -> Fraction:
        # From the clip's first frame.
        return Fraction(seconds) / self.tick + self.times[0] if self.times else Fraction(0)
