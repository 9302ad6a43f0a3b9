"""What an experiment was when its rows were published: results/designs.json has a hash of each part of it.

A claim is refused where the experiment's file changed afterwards: its rows are then of another experiment, or
its rule was chosen with the rows known.
"""

import hashlib
import json
from pathlib import Path

from motionexp.config.json_file import read_object
from motionexp.errors import InputError
from motionexp.files import write_whole
from motionexp.results.layout import Layout
from motionexp.results.published import root_of

DESIGNS = Path("results/designs.json")


def design_of(layout: Layout) -> dict[str, str]:
    """A short hash of each part of an experiment that its rows or its decision depend on; titles are none."""
    parts = {
        "sweep": layout.sweep,
        "references": layout.references,
        "select": layout.select,
        "settings": {
            name: [setting.select, setting.or_select, setting.base]
            for name, setting in layout.settings.items()
        },
        "decision": layout.decision.split(),
        "margin": layout.margin,
        "n": layout.n,
    }
    return {
        name: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:12]
        for name, part in parts.items()
    }


def record_design(experiment: Path, layout: Layout) -> None:
    """Writes the design of an experiment, by its file, whose rows are published now."""
    path = root_of(experiment) / DESIGNS
    path.parent.mkdir(parents=True, exist_ok=True)
    designs = read_designs(path) | {experiment.stem: design_of(layout)}
    write_whole(path, (json.dumps(designs, indent=1, sort_keys=True) + "\n").encode())


def read_designs(path: Path) -> dict[str, dict[str, str]]:
    """{experiment: its design} in a file; empty where there is none.

    Raises:
        InputError: the file cannot be read, or is no object of objects.
    """
    if not path.exists():
        return {}
    designs = read_object(path)
    if not all(isinstance(design, dict) for design in designs.values()):
        raise InputError(f"{path}: it should hold an object for each experiment; restore it")
    return designs


def check_unchanged(experiment: Path, layout: Layout) -> None:
    """Refuses an experiment, by its file, that changed after its rows were published.

    Raises:
        InputError: names the keys of the experiment's file that changed.
    """
    path = root_of(experiment) / DESIGNS
    recorded, today = read_designs(path).get(experiment.stem), design_of(layout)
    if recorded is None:
        raise InputError(
            f"{experiment}: {path} has no record of it as it was when {layout.rows} was published; publish"
            " its rows again"
        )
    if changed := [name for name in today if recorded.get(name) != today[name]]:
        hashes = ", ".join(f"{name} {today[name]}" for name in changed)
        raise InputError(
            f"{experiment}: its {', '.join(changed)} changed after {layout.rows} was published, so that"
            " nothing is claimed on these rows; run it and publish again. Where only words changed, write the"
            f" hash of today into {DESIGNS} ({hashes})"
        )
