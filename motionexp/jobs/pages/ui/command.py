"""`python run.py ui`: a page on this machine to try references, methods and windows on. No torch."""

import importlib.util
import os
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress

from motionexp.config.commands import UiConfig, command_settings
from motionexp.errors import InputError, extra_command
from motionexp.files import user_path

HOST = "127.0.0.1"
"""No other machine reaches the page."""
# Gradio would report its use, and look for newer versions.
NO_NETWORK = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_SHARE": "False"}


def ui(words: Sequence[str]) -> None:
    """`python run.py ui [output=FOLDER] [port=7860]`: serve the page until Ctrl-C, which stops its jobs.

    Raises:
        InputError: another word, Gradio is not installed, or the port is taken.
    """
    cfg, _ = command_settings("ui", UiConfig, words)
    if user_path(cfg.output).is_file():
        raise InputError(f"output={cfg.output}: a file; name a folder")
    if importlib.util.find_spec("gradio") is None:
        raise InputError(f"ui: needs the extra ui, which is not installed: {extra_command('ui')}")
    os.environ.update(NO_NETWORK)
    with tempfile.TemporaryDirectory(prefix="motionexp-ui-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # of uploads, before their check
        from motionexp.jobs.pages.ui.page import served  # imports Gradio

        with served(cfg.output, HOST, cfg.port) as address, suppress(KeyboardInterrupt):
            print(f"page: {address} (Ctrl-C ends it, and stops its jobs)", flush=True)
            threading.Event().wait()
