"""The narrow form of YAML that the workbench writes itself, read some fifty times faster than any YAML.

A list of hundreds of runs reads as many configurations. Whatever is not of this form is left to the YAML library.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

_SECTION = re.compile(r"([a-z_]+):")
_SETTING = re.compile(r"  ([a-z_]+): (.+)")
_WORDS = {"null": None, "true": True, "false": False}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
#: Some of these are no texts in YAML 1.2, others were not in YAML 1.1.
_NO_TEXTS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


class _NotPlain(ValueError):
    """A text that only the YAML library can read."""


def read_plain_yaml(text: str, read_yaml: Callable[[str], Any]) -> dict[str, Any] | None:
    """The sections of a configuration, as the YAML library would read them; None for a text that only it can read.

    read_yaml: the library, for single sections that hold more than plain values, such as a list. Each different section
    is read once: the configurations of one root folder differ in a few lines.
    """
    try:
        parts = _sections(text)
        values = {name: _section(part) for name, part in parts.items()}
    except _NotPlain:
        return None
    for name, part in parts.items():
        if values[name] is None:
            whole = _library_section(part, read_yaml)
            if whole is None or list(whole) != [name]:
                return None
            values[name] = whole[name]
    return copy.deepcopy(values) if values else None


def _sections(text) -> dict[str, str]:
    """The text of each section. Errors: _NotPlain unless every line without indent begins one, or is a comment."""
    parts, name = {}, None
    if set("\r\t\x85\u2028\u2029\ufeff") & set(text):
        raise _NotPlain  # other line ends, or white space that YAML counts in its own way
    for line in text.split("\n"):
        if line.startswith(" "):
            if name is None:
                raise _NotPlain
            parts[name].append(line)
        elif line and not line.startswith("#"):
            match = _SECTION.fullmatch(line)
            if match is None or match[1] in parts:
                raise _NotPlain
            name = match[1]
            parts[name] = [line]
        elif name is not None and not line:
            parts[name].append(line)
    return {name: "\n".join(lines) + "\n" for name, lines in parts.items()}


@lru_cache(maxsize=4096)
def _section(part) -> dict[str, Any] | None:
    """The settings of a section; None when one of them is no plain value."""
    values = {}
    for line in part.split("\n")[1:]:
        if not line or line.lstrip(" ").startswith("#"):
            continue
        match = _SETTING.fullmatch(line)
        if match is None or match[1] in values:
            return None
        try:
            values[match[1]] = _value(match[2])
        except _NotPlain:
            return None
    return values or None


def _value(text):
    if text in _WORDS:
        return _WORDS[text]
    if text == "{}":
        return {}
    if text == "[]":
        return []
    if _INTEGER.fullmatch(text) and len(text) < 19:
        return int(text)
    if _NUMBER.fullmatch(text) and not _INTEGER.fullmatch(text):
        return float(text)
    if _WORD.fullmatch(text) and text.lower() not in _NO_TEXTS:
        return text
    raise _NotPlain


@lru_cache(maxsize=4096)
def _library_section(part, read_yaml) -> dict[str, Any] | None:
    try:
        whole = read_yaml(part)
    except Exception:  # the whole text is read anew, and its error names the line
        return None
    return whole if isinstance(whole, dict) else None
