"""The one reader of text files that a user hands over: bounded, UTF-8, errors with their line."""

import codecs
import os
from pathlib import Path

from motionexp.errors import InputError

MOST_BYTES = 50_000_000


def read_text(path: Path, source: str = "") -> str:
    """The content of a UTF-8 file of at most `MOST_BYTES`, without its byte order mark.

    Args:
        path: of the file.
        source: what errors call the file; its path if empty.

    Raises:
        InputError: one line with the file, and with the line where something else than text begins.
    """
    source = source or str(path)
    if not os.path.isfile(path):  # Path.is_file raises OSError for a name that is too long
        raise InputError(f"{source}: there is no such file")
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from error
    if len(content) > MOST_BYTES:
        raise InputError(f"{source}: more than {MOST_BYTES // 1_000_000} MB; split the file")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{source}, line 1: UTF-16; store it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte, line = content[error.start], content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{source}, line {line}: the byte 0x{byte:02x} is not UTF-8; store the file as UTF-8"
        ) from error
    if (position := text.find("\0")) >= 0:
        line = text.count("\n", 0, position) + 1
        raise InputError(
            f"{source}, line {line}: a NUL byte, which no text has; store the file as UTF-8 text"
        )
    return text
