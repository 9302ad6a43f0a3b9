"""Names of release 0.0 and what they are called now: settings, options, and words in rows. Imports no torch.

Settings and options under an old name are refused with the new name. Rows and adapters under an old name are
read under the new one, so that finished cells are found again.
"""

from collections.abc import Mapping
from typing import Any

SETTINGS = {"scoring.anchors": "scoring.sanity_baselines", "data.looks": "data.appearances"}
OPTIONS = {
    "method=direct": "method=full_rank",
    "data=nameable": "data=captioned",
    "experiment=direct": "experiment=full_rank",
    "experiment=tau_look": "experiment=tau_selection",
    "offload=true": "offload=model",
    "offload=false": "offload=none",
}
METHODS = {"direct": "full_rank", "anchor": "sanity_baseline"}
STRATA = {"looks": "appearances", "anchor": "sanity_baseline"}
STRATUM_VALUES: Mapping[str, Mapping[str, str]] = {
    "contrast": {"natural": "motion-dominant", "poster": "appearance-dominant"},
    "motion": {"nameable": "captioned", "unnamed": "uncaptioned", "unsupported": "out-of-distribution"},
    "captions": {"nameable": "captioned"},
}


def renamed_row(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON holds it, with every name that release 0.0 wrote replaced by today's."""
    renamed = dict(plain)
    if "method" in plain:
        renamed["method"] = METHODS.get(str(plain["method"]), plain["method"])
    if isinstance(plain.get("strata"), dict):
        renamed["strata"] = {
            STRATA.get(name, name): STRATUM_VALUES.get(name, {}).get(str(value), value)
            for name, value in plain["strata"].items()
        }
    scoring = plain.get("settings", {}).get("scoring") if isinstance(plain.get("settings"), dict) else None
    if isinstance(scoring, dict) and "anchors" in scoring:
        new = {"sanity_baselines" if name == "anchors" else name: value for name, value in scoring.items()}
        renamed["settings"] = {**plain["settings"], "scoring": new}
    return renamed
