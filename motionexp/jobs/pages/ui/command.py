"""`python run.py ui`: a page on this machine to try references, methods and windows on. No torch."""

import importlib.util
import os
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress

from motionexp.config.command_line import selection
from motionexp.errors import InputError, one_of
from motionexp.files import user_path

NAMES = ("output", "port")
HOST, PORT = "127.0.0.1", 7860
"""No other machine reaches the page."""
# Gradio would report its use, and look for newer versions.
NO_NETWORK = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_SHARE": "False"}


def ui(words: Sequence[str]) -> None:
    """`python run.py ui [output=FOLDER] [port=7860]`: serve the page until Ctrl-C, which stops its jobs.

    Raises:
        InputError: another word, Gradio is not installed, or the port is taken.
    """
    settings = selection("ui", words)
    if wrong := [name for name in settings if name not in NAMES]:
        raise InputError(f"{wrong[0]}=: {one_of(wrong[0], NAMES)}")
    output, port = settings.get("output", "outputs"), _port(settings.get("port", str(PORT)))
    if user_path(output).is_file():
        raise InputError(f"output={output}: a file; name a folder")
    if importlib.util.find_spec("gradio") is None:
        raise InputError("ui: needs the extra motionexp[ui]: pip install 'gradio>=6'")
    os.environ.update(NO_NETWORK)
    with tempfile.TemporaryDirectory(prefix="motionexp-ui-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # of uploads, before their check
        from motionexp.jobs.pages.ui.page import served  # imports Gradio

        with served(output, HOST, port) as address, suppress(KeyboardInterrupt):
            print(f"page: {address} (Ctrl-C ends it, and stops its jobs)", flush=True)
            threading.Event().wait()


def _port(text: str) -> int:
    if not text.isdecimal() or not 1024 <= int(text) <= 65535:
        raise InputError(f"port={text:.40}: a whole number from 1024 to 65535")
    return int(text)
