"""The forms of a questionnaire: what it asks, and how many samples of a method a page shows."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """A question of a form.

    Attributes:
        name: of the question in answers and tables.
        text: as participants read it.
        about: what is meant, in a sentence below the text.
    """

    name: str
    text: str
    about: str


@dataclass(frozen=True)
class Form:
    """A form of a questionnaire.

    Attributes:
        questions: of every page.
        outputs: samples of each method on a page.
        levels: of a rating, worst first; empty: people pick the best method instead.
        source: the study that has these questions.
        tasks: what participants do, one sentence each, for the instructions.
    """

    questions: tuple[Question, ...]
    outputs: int
    levels: tuple[str, ...]
    source: str
    tasks: tuple[str, ...]

    @property
    def has_picks(self) -> bool:
        """Whether people pick the best method, and do not rate each one."""
        return not self.levels


AGREEMENT = ("strongly disagree", "disagree", "neither", "agree", "strongly agree")
QUALITY = ("very bad", "bad", "fair", "good", "very good")
MOTION = "Look at what moves, where to and how fast. Do not mind colours, objects or surroundings."
RATED = (
    "Each page shows one given video, the reference, and a video by each of several methods.",
    "A method was asked to make a new video with the motion of the reference, which shows what the"
    " description says.",
    "Rate every video for itself. Several videos may get the same rating.",
)
FORMS: Mapping[str, Form] = {
    "picks": Form(
        (
            Question(
                "motion fidelity",
                "Which method follows the motion of the reference best?",
                "Compare over time: what moves, where to and how fast. Do not mind colours or objects.",
            ),
            Question(
                "motion diversity",
                "Whose two videos differ most from each other in how they move?",
                "Compare the two videos of a method over time. Do not mind colours or objects.",
            ),
        ),
        2,
        (),
        "the second paper, 4.4 and Table 3",
        (
            "Each page shows one given video, the reference, and two videos by each of several methods.",
            "A method was asked to make new videos with the motion of the reference, which show what the"
            " description says.",
            "Answer both questions with one method. If several are equally good, take the one that you would"
            " rather have.",
        ),
    ),
    "ditflow": Form(
        (
            Question("motion adherence", "The video moves in the way the reference moves.", MOTION),
            Question(
                "prompt adherence",
                "The video shows what its description says.",
                "Compare the video with the description alone, not with the reference.",
            ),
        ),
        1,
        AGREEMENT,
        "DiTFlow, 5.2 and Figure 6",
        RATED,
    ),
    "vmc": Form(
        (
            Question(
                "edit accuracy",
                "How well does the video show what its description says?",
                "Compare the video with the description alone, not with the reference.",
            ),
            Question(
                "temporal consistency",
                "How smooth and steady is the video?",
                "Nothing should flicker, jump or change its shape from frame to frame.",
            ),
            Question("motion accuracy", "How well does the video keep the motion of the reference?", MOTION),
        ),
        1,
        QUALITY,
        "VMC's table of ratings; its wording was not at hand",
        RATED,
    ),
}
CHECKED = {"picks": "motion fidelity", "ditflow": "motion adherence", "vmc": "motion accuracy"}
"""The question by which a form tests attention: about the motion of the reference."""
MANNERS = (
    "There is no right or wrong answer to most questions: we want to know what you see.",
    "Videos repeat. Watch each of them at least once from start to end before you answer.",
    "The order of the methods is random on every page, so that A on one page is not A on the next.",
    "Your answers stay in this browser until you save them as a file. You can stop at any time and go on"
    " later with the same link on the same device.",
    "Nothing but your answers and the time that a page was open is recorded.",
)
