"""Lists and objects that a table holds as text: JSON, or what Python prints, back as values. Standard library only."""

import ast
import io
import json
import re
import tokenize

from .refused import RowRefused, excerpt

#: Characters of a text in Python's own notation, whose parser takes a hundred times as much memory.
LONGEST_LITERAL = 1_000_000
_LOOKS_LIKE_TURNS = re.compile(r"\s*\[?\s*\{\s*['\"]")
_ROLE, _CONTENT = re.compile(r"['\"](role|from)['\"]\s*:"), re.compile(r"['\"](content|value)['\"]\s*:")


def value_of(text) -> list | dict | None:
    """The list or object that a text spells in JSON or as Python prints it; None for any other text."""
    if text.lstrip()[:1] not in ("[", "{"):
        return None
    for parse in (_from_json, _from_python):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError):
            continue
        return value if isinstance(value, list | dict) else None
    return None


def turns_written_in(text, known_roles) -> list | dict | None:
    """The turns that a text spells: a list, one turn, or an object with `messages`; None for any other text.

    A text is taken for turns only where every role is known: a JSON answer with the keys role and content, about a
    nurse, stays an answer. Errors: RowRefused for turns that are neither JSON nor a Python list, such as those that
    numpy prints.
    """
    if not _LOOKS_LIKE_TURNS.match(text):
        return None
    value = value_of(text)
    if value is None:
        if text.rstrip()[-1:] in ("]", "}") and _ROLE.search(text) and _CONTENT.search(text):
            raise RowRefused("unreadable", f"text with turns that are neither JSON nor a Python list: {excerpt(text)}")
        return None
    turns = value.get("messages") if isinstance(value, dict) and "messages" in value else value
    listed = turns if isinstance(turns, list) else [turns]
    if listed and all(_is_turn(turn, known_roles) for turn in listed):
        return value
    return None


def _is_turn(value, known_roles):
    if not isinstance(value, dict) or not ({"role", "content"} <= value.keys() or {"from", "value"} <= value.keys()):
        return False
    role = value.get("role") if value.get("role") is not None else value.get("from")
    return isinstance(role, str) and role.strip().lower() in known_roles


def _from_json(text):
    return json.loads(text)


def _from_python(text):
    if len(text) > LONGEST_LITERAL:
        raise ValueError("too long for Python's parser")
    value = ast.literal_eval(text.strip())
    # numpy prints ['a' 'b'], which Python would read as one text
    before = None
    for token in tokenize.generate_tokens(io.StringIO(text.strip()).readline):
        if token.type == tokenize.STRING and before == tokenize.STRING:
            raise ValueError("two texts without a comma")
        if token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT):
            before = token.type
    return value
