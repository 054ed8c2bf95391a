"""Redaction of secrets: tokens, keys and passwords stay out of a run folder or a report, which are made to be shared.

A secret with a form of its own (a hub's token, a cloud's key) is redacted wherever it stands; one that only its name
gives away (`api_key = …`) when the value looks random. Every pattern begins with a fixed text and looks a bounded way
ahead, so that the time grows with the length of the text alone.
"""

from __future__ import annotations

import re
import sys
import threading
from typing import Any

MARK = "[redacted]"
#: Characters of an unfinished line that wait for their end.
LONGEST_HELD = 65_536

_FORMS = (
    (
        r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:(?:[^-]|-(?!----)){0,20000}-----END [A-Z ]{0,30}PRIVATE"
        r" KEY-----|[A-Za-z0-9+/=\s\\]{0,20000})"
    ),
    r"(?<![A-Za-z0-9])(?:hf|api_org)_[A-Za-z0-9]{16,}",
    r"(?<![A-Za-z0-9])gh[oprsu]_[A-Za-z0-9]{16,}",
    r"(?<![A-Za-z0-9])github_pat_[A-Za-z0-9_]{20,}",
    r"(?<![A-Za-z0-9])glpat-[A-Za-z0-9_-]{16,}",
    r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])",
    r"(?<![A-Za-z0-9])AIza[A-Za-z0-9_-]{35}",
    r"(?<![A-Za-z0-9])xox[abeoprs]-[A-Za-z0-9-]{12,}",
    r"(?<![A-Za-z0-9])(?:npm_[A-Za-z0-9]{36}|pypi-AgE[A-Za-z0-9_-]{40,})",
    r"(?<![A-Za-z0-9])[rs]k_(?:live|test)_[A-Za-z0-9]{16,}",
    r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*",
)
_KNOWN = re.compile("|".join(_FORMS))
#: OpenAI, Anthropic and others with the same form; package names such as sk-learn begin alike.
_SK = re.compile(r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{16,}")
_SK_PREFIX = re.compile(r"sk-(?:ant|proj|or-v\d|svcacct|admin)-")
_IN_ADDRESS = re.compile(r"(?<=://)[^\s/?#\"'<>(),]{1,500}@")
_AUTHORIZATION = re.compile(
    r"(authorization[\"']?[ \t]{0,4}[:=][ \t]{0,4}[\"']?(?:basic|bearer|token)[ \t]{1,4})([^\s\"'<>,;]{6,})",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(?<![A-Za-z])(bearer[ \t]{1,4})([A-Za-z0-9._~+/=-]{16,})", re.IGNORECASE)
_KEY_NAMED = re.compile(
    r"((?:secret[_-]?access[_-]?key|access[_-]?key|account[_-]?key|api[_-]?key|secret[_-]?key|private[_-]?key|client[_-]?secret|secret|token|x-amz-signature|(?<=[?&])sig(?:nature)?)"
    r"\\?[\"']?[ \t]{0,4}(?::=|[:=])[ \t]{0,4}\\?[\"']?)([A-Za-z0-9+/_=.~-]{16,})",
    re.IGNORECASE,
)
_PASSWORD_NAMED = re.compile(
    r"((?:password|passwd|passphrase)\\?[\"']?[ \t]{0,4}(?::=|[:=])[ \t]{0,4}\\?[\"']?)([^\s\"'<>,;\\&]{6,})",
    re.IGNORECASE,
)
#: "eos_token: …" names a token of a vocabulary.
_VOCABULARY = re.compile(
    r"(?:eos|bos|pad|unk|sep|cls|mask|end|start|stop|next|last|first|special|image|added|per|a|one|the)[_ -]\Z",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """The text with every secret replaced by "[redacted]". Redacting it again changes nothing."""
    text = _KNOWN.sub(MARK, text)
    text = _SK.sub(lambda match: MARK if _is_sk(match[0]) else match[0], text)
    if "://" in text:
        text = _IN_ADDRESS.sub(_user_redacted, text)
    text = _AUTHORIZATION.sub(rf"\1{MARK}", text)
    text = _BEARER.sub(lambda match: match[1] + MARK if _is_random(match[2]) or len(match[2]) >= 30 else match[0], text)
    text = _KEY_NAMED.sub(_named_redacted, text)
    return _PASSWORD_NAMED.sub(lambda match: match[1] + MARK if _has_letter_and_digit(match[2]) else match[0], text)


def holds_secret(value: Any) -> bool:
    """Whether `redact` would change a text, or any text in a list or dict."""
    if isinstance(value, str):
        return redact(value) != value
    if isinstance(value, dict):
        return any(holds_secret(item) for pair in value.items() for item in pair) or any(
            holds_secret(f"{key}: {item}") for key, item in value.items() if isinstance(item, str)
        )
    return isinstance(value, (list, tuple)) and any(map(holds_secret, value))


def redact_values(value: Any) -> Any:
    """The same nested dicts and lists with every text redacted; keys, numbers and other values stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redact_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_values(item) for item in value]
    return value


class RedactedStream:
    """A text stream that redacts what is written to it line by line and passes it on to another stream.

    An unfinished line waits for its end, or for `flush`.
    """

    def __init__(self, stream):
        self._stream, self._held, self._lock = stream, "", threading.RLock()

    def write(self, text: str) -> int:
        with self._lock:
            held = self._held + text
            end = max(held.rfind("\n"), held.rfind("\r")) + 1  # progress bars end their lines by a carriage return
            if len(held) - end > LONGEST_HELD:
                end = len(held)
            self._held = held[end:]
            if end:
                self._stream.write(redact(held[:end]))
        return len(text)

    def writelines(self, lines) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._lock:
            held, self._held = self._held, ""
            if held:
                self._stream.write(redact(held))
            self._stream.flush()

    def __getattr__(self, name):
        return getattr(self._stream, name)


def redact_output() -> None:
    """Redact whatever this process prints from now on, tracebacks included; what libraries write past Python is not."""
    sys.stdout, sys.stderr = RedactedStream(sys.stdout), RedactedStream(sys.stderr)


def _is_sk(text):
    tail = text[3:]
    runs = re.split(r"[_-]", tail)
    longest = max(map(len, runs))
    return (
        longest >= 20
        or (_has_letter_and_digit(tail) and (len(runs) == 1 or _SK_PREFIX.match(text) is not None))
        or (longest >= 16 and _SK_PREFIX.match(text) is not None)
    )


def _user_redacted(match):
    user, colon, _ = match[0][:-1].partition(":")
    return f"{MARK}@" if colon or (len(user) >= 16 and _has_letter_and_digit(user)) else match[0]


def _named_redacted(match):
    before = match.string[max(0, match.start() - 10) : match.start()]
    if match[1].lower().startswith("token") and _VOCABULARY.search(before):
        return match[0]
    path_like = "/" in match[2] and not re.match(r"secret[_-]?access", match[1], re.IGNORECASE)
    return match[1] + MARK if _is_random(match[2]) and not path_like else match[0]


def _is_random(text):
    """Whether a text of at least 16 characters mixes letters and digits as words do not."""
    return _has_letter_and_digit(text) and re.search(r"[A-Za-z0-9+/=]{12,}", text) is not None


def _has_letter_and_digit(text):
    return re.search(r"[A-Za-z]", text) is not None and re.search(r"[0-9]", text) is not None
