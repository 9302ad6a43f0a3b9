"""Names of release 0.0 and what they are called now: settings and options. Imports no torch."""

SETTINGS = {"scoring.anchors": "scoring.sanity_baselines", "data.looks": "data.appearances"}
OPTIONS = {
    "method=direct": "method=full_rank",
    "data=nameable": "data=captioned",
    "experiment=direct": "experiment=full_rank",
    "experiment=tau_look": "experiment=tau_selection",
}
