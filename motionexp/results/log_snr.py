"""Log-SNR by timestep, and back, from the rows of a model's schedule. Imports no torch."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from motionexp.errors import InputError
from motionexp.results.rows import Row


def log_snr_tables(rows: Iterable[Row]) -> dict[str, np.ndarray]:
    """{model: (1001,) log-SNR at t = 0, 1, ... 1000}, from rows of schedules, linear between their timesteps.

    A row of a schedule has the method `schedule`, a log-SNR as its value and the stratum `t`. Before the
    first and after the last timestep the log-SNR is infinite.

    Raises:
        InputError: a probed model has no rows of its schedule.
    """
    schedules: dict[str, dict[int, float]] = defaultdict(dict)
    probed = set()
    for row in rows:
        if row.method == "schedule":
            schedules[row.sampled_model][int(row.stratum("t"))] = row.value
        elif row.tau_start:
            probed.add(row.sampled_model)
    if lacking := sorted(probed - set(schedules)):
        raise InputError(
            f"rows of probes on {', '.join(lacking)} without rows of the schedule; run the probe again"
            " (finished rows are reused) and publish both"
        )
    tables = {}
    for model, values in sorted(schedules.items()):
        t, log_snr = zip(*sorted(values.items()), strict=True)
        # (1001,) at every timestep, from those of the rows.
        tables[model] = np.interp(np.arange(1001), t, log_snr, left=np.inf, right=-np.inf)
    return tables


def log_snr_at(t: np.ndarray | float, log_snr: np.ndarray) -> np.ndarray:
    """The log-SNR at timesteps t, by a table (1001,) at t = 0, 1, ... 1000 whose ends may be infinite."""
    finite = np.isfinite(log_snr)
    # None: np.interp then continues with the last finite value.
    left, right = np.inf if not finite[0] else None, -np.inf if not finite[-1] else None
    return np.interp(t, np.flatnonzero(finite), log_snr[finite], left=left, right=right)


def timestep_at(value: np.ndarray | float, log_snr: np.ndarray) -> np.ndarray:
    """The timestep of a log-SNR, the nearest one where no timestep has it; the inverse of `log_snr_at`."""
    finite = np.isfinite(log_snr)
    # np.interp needs an ascending x, and the log-SNR falls with t.
    return np.interp(-np.asarray(value), -log_snr[finite], np.flatnonzero(finite))
