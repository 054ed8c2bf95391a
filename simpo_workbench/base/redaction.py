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

_PRIVATE_KEY = (
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:(?:[^-]|-(?!----)){0,20000}-----END [A-Z ]{0,30}PRIVATE"
    r" KEY-----|[A-Za-z0-9+/=\s\\]{0,20000})"
)
#: Tokens with a form of their own, by who issues them. What stands before them is no letter or digit.
_FORMS = {
    "Hugging Face": r"(?:hf|api_org)_[A-Za-z0-9]{16,}|hf_(?:oauth|jwt)_[A-Za-z0-9_.-]{16,}",
    "GitHub": r"gh[oprsu]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{20,}",
    "GitLab": r"gl(?:pat|dt|rt|cbt|ptt|ft|soat)-[A-Za-z0-9_-]{16,}",
    "Amazon": r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])|ABSK[A-Za-z0-9+/]{60,}={0,2}",
    "Google": (
        r"AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{20,}|ya29\.[A-Za-z0-9_-]{20,}|AQ\.A[A-Za-z0-9_-]{40,}"
        r"|1//0[A-Za-z0-9_-]{40,}"
    ),
    "Slack": r"(?:xox[abeoprs]|xoxe\.xox[bp])-[A-Za-z0-9-]{12,}|xapp-\d-[A-Za-z0-9-]{20,}",
    "Weights & Biases": r"wandb_v\d_[A-Za-z0-9_]{30,}",
    "Groq": r"gsk_[A-Za-z0-9]{40,}",
    "xAI": r"xai-[A-Za-z0-9]{60,}",
    "Replicate": r"r8_[A-Za-z0-9]{36,}",
    "Databricks": r"dapi[0-9a-f]{32}(?:-\d)?(?![0-9A-Za-z])|dose[0-9a-f]{32}(?![0-9A-Za-z])",
    "SendGrid": r"SG\.[A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_-]{39,50}",
    "Telegram": r"\d{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])",
    "Discord": r"[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40}(?![A-Za-z0-9_-])",
    "ModelScope": r"ms-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "Zhipu": r"[0-9a-f]{32}\.(?=[A-Za-z]{0,15}\d)(?=\d{0,15}[A-Za-z])[A-Za-z0-9]{16}(?![A-Za-z0-9])",
    "NVIDIA": r"nvapi-[A-Za-z0-9_-]{40,}",
    "Perplexity": r"pplx-[A-Za-z0-9]{40,}",
    "Cerebras": r"csk-[A-Za-z0-9]{40,}",
    "Fireworks": r"fw_(?=[A-Za-z]{0,40}\d)[A-Za-z0-9]{22,}",
    "Together": r"tgp_v\d_[A-Za-z0-9_-]{30,}",
    "Pinecone": r"pcsk_[A-Za-z0-9]{4,8}_[A-Za-z0-9]{40,}",
    "LangChain": r"lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{8,}",
    "Jina": r"jina_[A-Za-z0-9]{50,}",
    "Tavily": r"tvly-(?:dev-|prod-)?(?=[A-Za-z]{0,40}\d)[A-Za-z0-9]{28,}",
    "Kaggle": r"KGAT_[0-9a-f]{32}",
    "RunPod": r"rpa_[A-Z0-9]{30,}[a-z0-9]{0,10}",
    "Docker": r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{24,}",
    "Packages": r"npm_[A-Za-z0-9]{36}|pypi-AgE[A-Za-z0-9_-]{40,}|rubygems_[0-9a-f]{48}",
    "Stripe": r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/]{30,}={0,2}",
    "Twilio": r"SK[0-9a-f]{32}(?![0-9A-Za-z])",
    "Mailgun": r"key-[0-9a-f]{32}(?![0-9A-Za-z])",
    "Others": (
        r"dop_v1_[0-9a-f]{64}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}|hvs\.[A-Za-z0-9_-]{24,}|lin_api_[A-Za-z0-9]{40}"
        r"|ntn_[A-Za-z0-9]{40,}|sntry[su]_[A-Za-z0-9+/=_-]{40,}|ATATT3[A-Za-z0-9_=-]{60,}|ATBB[A-Za-z0-9]{32}"
        r"|sbp_[0-9a-f]{40}|nfp_[A-Za-z0-9]{36}|AGE-SECRET-KEY-1[A-Z0-9]{50,}"
    ),
    "Web tokens": r"(?<![_-])eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*",
}
_KNOWN = re.compile(f"{_PRIVATE_KEY}|(?<![A-Za-z0-9])(?:{'|'.join(_FORMS.values())})")
#: Addresses that are secrets themselves: whoever has one can post.
_HOOK = re.compile(
    r"(hooks\.slack\.com/(?:services|workflows|triggers)/|discord(?:app)?\.com/api/webhooks/\d{10,25}/"
    r"|api\.telegram\.org/bot)([A-Za-z0-9_:/-]{20,})"
)
#: OpenAI, Anthropic and others with the same form; package names such as sk-learn begin alike.
_SK = re.compile(r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{16,}")
_SK_PREFIX = re.compile(r"sk-(?:ant|proj|or-v\d|svcacct|admin)-")
_IN_ADDRESS = re.compile(r"(?<=://)[^\s/?#\"'<>(),]{1,500}@")
_AUTHORIZATION = re.compile(
    r"(authorization[\"']?[ \t]{0,4}[:=][ \t]{0,4}[\"']?(?:basic|bearer|token)[ \t]{1,4})"
    r"(?![^\s\"']{0,12}(?:\*\*\*|\.\.\.|…))(?!(?-i:[a-z]{1,30})(?![^\s.,;:!?]))([^\s\"'<>,;]{6,})",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(?<![A-Za-z])(bearer[ \t]{1,4})([A-Za-z0-9._~+/=-]{16,})", re.IGNORECASE)
_KEY_NAMED = re.compile(
    r"((?:secret[_-]?access[_-]?key|access[_-]?key|account[_-]?key|api[_-]?key|secret[_-]?key|private[_-]?key|client[_-]?secret|secret|token|x-amz-signature|(?-i:(?<=[A-Z0-9]_)KEY)|(?<=[?&])sig(?:nature)?)"
    r"\\?[\"']?[ \t]{0,4}(?::=|[:=])[ \t]{0,4}\\?[\"']?)([A-Za-z0-9+/_=.~-]{16,})",
    re.IGNORECASE,
)
_PASSWORD_NAMED = re.compile(
    r"((?:password|passwd|passphrase)\\?[\"']?[ \t]{0,4}(?::=|[:=])[ \t]{0,4}\\?[\"']?)([^\s\"'<>,;\\&]{6,})",
    re.IGNORECASE,
)
#: Characters of the shortest secret that is looked for in data.
_SHORTEST = 16
#: One of these is in every secret of a known form, but for Discord's and Zhipu's: `in` is quicker than `re`.
_NEEDLES = (  # noqa: SIM905 - as a list it would take sixty lines
    "sk- hf_ api_org_ ghp_ gho_ ghr_ ghs_ ghu_ github_pat_ glpat- gldt- glrt- glcbt- glptt- glft- glsoat- AKIA ASIA "
    "ABSK AIza GOCSPX- ya29. AQ.A 1//0 xox xapp- wandb_v gsk_ xai- r8_ dapi dose SG. :AA ms- nvapi- pplx- csk- fw_ "
    "tgp_v pcsk_ lsv2_ jina_ tvly- KGAT_ rpa_ dckr_ npm_ pypi-AgE rubygems_ k_live_ k_test_ whsec_ SK key- dop_v1_ "
    "shp hvs. lin_api_ ntn_ sntry ATATT3 ATBB sbp_ nfp_ AGE-SECRET eyJ hooks.slack.com api/webhooks/"
).split()
#: Command lines, also as a list of words: --api-key VALUE, --hf-token=VALUE, '--password', 'VALUE'.
_OPTION = re.compile(
    r"(--?(?:[a-z0-9]{1,30}[_-]){0,4}(?:(?P<key>api[_-]?key|access[_-]?key|secret[_-]?key|key|token|secret|credentials?)"
    r"|password|passwd|passphrase)[\"']?(?:,[ \t]{1,4}|[ \t]{1,4}|=)[\"']?)(?P<value>[^\s\"'<>,;\\&|]{6,})",
    re.IGNORECASE,
)
#: A letter and a digit in the word that follows, as few words of ordinary text have.
_MIXED = r"(?=[^\s\d]{0,60}\d)(?=[^\sA-Za-z]{0,60}[A-Za-z])"
#: A session's cookie, in a header.
_COOKIE = re.compile(
    r"(\b(?:set-)?cookie[\"']?[ \t]{0,4}[:=][^\n]{0,200}?(?:session|sid|auth|token)[A-Za-z_-]{0,20}=)"
    r"([A-Za-z0-9+/_=.%~-]{16,})",
    re.IGNORECASE,
)
#: Commands whose arguments hold a password without naming it, and the lines of a .netrc file.
_COMMAND = re.compile(
    r"(\bcurl\b[^\n|;]{0,300}?[ \t](?:-u|--user|--proxy-user)[ =]?[\"']?[^\s:\"'$<]{1,100}:"
    r"|\bsshpass[ \t]{1,4}-p[ \t]?[\"']?"
    r"|\bdocker[ \t]{1,4}login\b[^\n|;]{0,200}?[ \t]-p[ \t]?[\"']?"
    r"|\bwandb[ \t]{1,4}login\b[^\n|;]{0,100}?[ \t](?=[0-9a-f]{40}\b)"
    r"|\bngrok[ \t]{1,4}(?:config[ \t]{1,4}add-)?authtoken[ \t]{1,4}(?=[A-Za-z0-9_]{20})"
    rf"|\bmysql(?:dump|admin)?\b[^\n|;]{{0,200}}?[ \t]-p{_MIXED}"
    rf"|\blogin\s{{1,20}}[^\s]{{1,100}}\s{{1,20}}password[ \t]{{1,4}}{_MIXED})"
    r"([^\s\"'<>,;\\&|$]{4,})"
)
#: `password = base64.b16encode(…`: an expression of a program.
_CODE = re.compile(r"[A-Za-z_]\w{0,40}(?:\.\w{1,40}|\[[\d:-]{0,8}\]){1,6}[\[(]")
#: What documentation writes for a password.
_PLACEHOLDERS = {"", "password", "passwd", "pass", "passphrase", "pwd", "pw", "secret", "token", "xxx", "xxxx", "..."}
#: "eos_token: …" names a token of a vocabulary.
_VOCABULARY = re.compile(
    r"(?:eos|bos|pad|unk|sep|cls|mask|end|start|stop|next|last|first|special|image|added|per|a|one|the"
    r"|hash|checksum|digest|md5|sha\d{0,3})[_ -]\Z",
    re.IGNORECASE,
)
#: `PRIMARY_KEY=…` names no secret.
_NO_SECRET_KEYS = ("PUBLIC_", "PRIMARY_", "FOREIGN_", "CACHE_", "SORT_", "PARTITION_", "GROUP_", "INDEX_")
#: So long a text of letters and digits is a key in base64 and no path, although it holds slashes.
_LONG_KEY = re.compile(r"(?=[^a-z]*[a-z])(?=[^A-Z]*[A-Z])[A-Za-z0-9+][A-Za-z0-9+/]{59,}={0,2}")


def redact(text: str) -> str:
    """The text with every secret replaced by "[redacted]". Redacting it again changes nothing."""
    text = _KNOWN.sub(MARK, text)
    text = _SK.sub(lambda match: MARK if _is_sk(match[0]) else match[0], text)
    if "://" in text:
        text = _IN_ADDRESS.sub(_user_redacted, text)
        text = _HOOK.sub(rf"\1{MARK}", text)
    if "-" in text:
        text = _OPTION.sub(_option_redacted, text)
    if "-" in text or "login" in text or "authtoken" in text:
        text = _COMMAND.sub(lambda match: match[0] if MARK in match[2] else match[1] + MARK, text)
    text = _AUTHORIZATION.sub(rf"\1{MARK}", text)
    text = _BEARER.sub(lambda match: match[1] + MARK if _is_random(match[2]) or len(match[2]) >= 30 else match[0], text)
    if "ookie" in text:
        text = _COOKIE.sub(lambda match: match[1] + MARK if _is_random(match[2]) else match[0], text)
    text = _KEY_NAMED.sub(_named_redacted, text)
    return _PASSWORD_NAMED.sub(_password_redacted, text)


def holds_secret(value: Any) -> bool:
    """Whether `redact` would change a text, or any text in a list or dict."""
    if isinstance(value, str):
        return redact(value) != value
    if isinstance(value, dict):
        return any(holds_secret(item) for pair in value.items() for item in pair) or any(
            holds_secret(f"{key}: {item}") for key, item in value.items() if isinstance(item, str)
        )
    return isinstance(value, (list, tuple)) and any(map(holds_secret, value))


def holds_known_secret(text: str) -> bool:
    """Whether a text from data holds a secret with a form of its own, or an address with a password.

    What only its name gives away does not count, since data are full of examples of it. Quick where there is none.
    """
    if "PRIVATE KEY-----" in text and _KNOWN.search(text):
        return True
    # no secret has a space, and few words of ordinary text are as long as one
    text = "\n".join([word for word in text.split() if len(word) >= _SHORTEST])
    if not (any(needle in text for needle in _NEEDLES) or ("://" in text and "@" in text)):
        return False
    cleaned = _KNOWN.sub("", text)
    return (
        cleaned != text
        or any(_is_sk(match[0]) for match in _SK.finditer(text))
        or _HOOK.search(text) is not None
        or any(MARK in _user_redacted(match) for match in _IN_ADDRESS.finditer(text))
    )


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
    user, colon, password = match[0][:-1].partition(":")
    if colon and password.strip("$*{}[]").lower() in _PLACEHOLDERS:
        return match[0]
    return f"{MARK}@" if colon or (len(user) >= 16 and _has_letter_and_digit(user)) else match[0]


def _named_redacted(match):
    before = match.string[max(0, match.start() - 10) : match.start()]
    if match[1].lower().startswith("token") and _VOCABULARY.search(before):
        return match[0]
    if match[1].startswith("KEY") and before.endswith(_NO_SECRET_KEYS):
        return match[0]
    is_aws = re.match(r"secret[_-]?access", match[1], re.IGNORECASE)
    path_like = "/" in match[2] and not is_aws and not _LONG_KEY.fullmatch(match[2])
    return match[1] + MARK if _is_random(match[2]) and not path_like else match[0]


def _password_redacted(match):
    is_code = _CODE.match(match[2]) is not None
    return match[1] + MARK if _has_letter_and_digit(match[2]) and not is_code else match[0]


def _option_redacted(match):
    value = match["value"]
    if match["key"]:
        is_secret = len(value) >= 16 and _is_random(value) and "/" not in value
    else:
        is_secret = _has_letter_and_digit(value) and not value.startswith(("/", "$"))
    return match[1] + MARK if is_secret else match[0]


def _is_random(text):
    """Whether a text of at least 16 characters mixes letters and digits as words do not."""
    return _has_letter_and_digit(text) and re.search(r"[A-Za-z0-9+/=]{12,}", text) is not None


def _has_letter_and_digit(text):
    return re.search(r"[A-Za-z]", text) is not None and re.search(r"[0-9]", text) is not None
