"""UUIDs in the forms that databases keep them in: 16 bytes, text, a type of its own.

The wire form is the source's (base64 of a binary column, else text), and stays so in the log and in
headwater_identity: it is converted where it meets a column of the target. Bytes stand in the order
of the text, as UUID_TO_BIN(x) has them without its swap flag.
"""

import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from typing import Any

from schemas.kinds import Kind

TEXT = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

NONE = b"no UUID: "
"""Before what is none, in the form of the other side: it equals nothing there."""


def is_bytes_elsewhere(kind: Kind, family: str) -> bool:
    """Whether a text of the source is bytes in a column of that family (apply/fit.py)."""
    return family == "binary" and kind.name in ("uuid", "text")


def is_text_elsewhere(kind: Kind, family: str) -> bool:
    """Whether bytes of the source are a text, or a UUID, in a column of that family."""
    return kind.name == "binary" and family in ("uuid", "text")


def spelled(raw: bytes) -> str:
    """Sixteen bytes as text."""
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def text_of(base64: str) -> str:
    """Bytes as the wire has them -> the UUID's text."""
    raw = a2b_base64(base64)
    return spelled(raw) if len(raw) == 16 else (NONE + raw.hex().encode()).decode()


def base64_of(text: str) -> str:
    """The inverse, of text in any letter case."""
    raw = bytes.fromhex(text.replace("-", "")) if TEXT.fullmatch(text) else NONE + text.encode()
    return b2a_base64(raw, newline=False).decode()


def back(kind: Kind, family: str) -> Callable[[str], str] | None:
    """What turns a text that the target prints into the source's wire form; None: nothing."""
    if is_text_elsewhere(kind, family):
        return base64_of
    return text_of if is_bytes_elsewhere(kind, family) else None


def wire_text(value: Any, kind: Kind) -> str:
    """An identity that a driver gave, of the source's kind, as the wire has it."""
    if not isinstance(value, bytes):
        return base64_of(str(value)) if kind.name == "binary" else str(value)
    return b2a_base64(value, newline=False).decode() if kind.name == "binary" else spelled(value)
