"""The known shapes of rows, how each is recognised by its columns, and which one a row has. Standard library only.

SHAPES is the table; the first shape that fits reads the row (`reading.py`). docs/data-shapes.md has an example of each.
"""

import functools
from dataclasses import dataclass

from . import verdicts
from .judging_words import words_of
from .named_answers import NAMED_COLUMNS, NAMED_SIDES, NAMING, named_answers
from .rankings import is_graded, list_column
from .refused import RowRefused, is_missing, kind_of, names_of
from .turns import ROLES, is_transcript
from .unpaired import labelled_columns
from .votes import ANSWER_WORDS
from .written import turns_written_in

PAIR, SIDES, RANKING, LABELLED = "pair", "two answers and a label", "several answers", "one answer and a label"
#: Columns of prompts; the first that a row has is read.
PROMPTS = (
    "prompt", "conversations", "instruction", "question", "query", "messages", "input", "context", "conversation",
    "post",
)  # fmt: skip
#: Prompts that are always part of a row that has them; the others may repeat what both answers hold.
_SURE_PROMPTS = PROMPTS[:5]


@dataclass(frozen=True)
class Shape:
    """One known shape of rows: its name, and the columns by which it is recognised.

    kind: PAIR, SIDES, RANKING or LABELLED. chosen, rejected: columns of the answers, of PAIR. holds_prompt: the answers
    (of ms-swift: the chosen one) are whole conversations.
    """

    name: str
    kind: str
    chosen: str = ""
    rejected: str = ""
    holds_prompt: bool = False

    @functools.cached_property
    def columns(self) -> tuple[str, ...]:
        """The required columns of answers, each once."""
        return tuple(dict.fromkeys(name for name in (self.chosen, self.rejected) if name))


def _pair(name, chosen, rejected, holds_prompt=False):
    return Shape(name, PAIR, chosen, rejected, holds_prompt)


SHAPES = (
    _pair("conversations", "chosen", "rejected", True),
    _pair("prompt, chosen, rejected", "chosen", "rejected"),
    _pair("Alpaca", "output", "output"),
    _pair("turbo-alignment", "answer_w", "answer_l"),
    _pair("Stack Exchange pairs", "response_j", "response_k"),
    _pair("OpenAI, Azure", "preferred_output", "non_preferred_output"),
    _pair("Argilla", "chosen_response", "rejected_response"),
    _pair("LLaMA-Factory v1", "chosen_messages", "rejected_messages", True),
    _pair("ms-swift", "messages", "rejected_response", True),
    _pair("ms-swift, two conversations", "messages", "rejected_messages", True),
    _pair("ShareGPT, rejected response", "conversations", "rejected_response", True),
    _pair("ms-swift, query and response", "response", "rejected_response"),
    Shape("two answers and a label", SIDES),
    Shape("several answers", RANKING),
    Shape("one answer and a label", LABELLED),
)  # fmt: skip
_PLAIN, _OF_SIDES, _OF_LISTS = (next(shape for shape in SHAPES if shape.name == name) for name in (
    "prompt, chosen, rejected", "two answers and a label", "several answers",
))  # fmt: skip
#: Columns of whole conversations that end in the chosen answer; the rejected one stands beside them alone.
ENDING_IN_CHOSEN = ("messages", "conversations")


@dataclass(frozen=True)
class Match:
    """The shape of a row and the columns of its prompt (None: inside the answers) and its two answers."""

    shape: Shape
    prompt: str | None
    chosen: str = ""
    rejected: str = ""


#: The match of a row with the columns prompt, chosen and rejected, each a text.
THREE_TEXTS = Match(SHAPES[1], "prompt", "chosen", "rejected")


def shape_of(row) -> Shape | None:
    """The shape of a row (dict), or None."""
    found = match_of(row)
    return found.shape if found else None


def match_of(row) -> Match | None:
    """How a row (dict) is read, or None; a shape whose columns all hold a value is preferred."""
    three_texts = type(row.get("prompt")) is type(row.get("chosen")) is type(row.get("rejected")) is str
    if three_texts and (len(row) == 3 or named_answers(row, NAMING[0]) is None):
        return THREE_TEXTS  # what the search below finds for most rows
    incomplete = None
    for shape in SHAPES:
        found = _MATCHES[shape.kind](shape, row)
        if found is None:
            continue
        names = (found.prompt, found.chosen, found.rejected)
        if all(not is_missing(row.get(name)) for name in names if name):
            return found
        incomplete = incomplete or found
    return incomplete


def _match_pair(shape, row):
    if shape.chosen not in row or shape.rejected not in row:
        return None
    if shape.columns in NAMING and len(row) > 3 and (named := named_answers(row, shape.columns)) is not None:
        return _match_named(shape, row, named)
    prompt = _prompt_column(row, shape.columns)
    if shape.holds_prompt:
        if shape.chosen in ENDING_IN_CHOSEN:
            fits = "chosen" not in row
        elif shape.chosen == "chosen":
            values = [row[side] for side in shape.columns]
            fits = any(map(_is_no_plain_text, values)) if prompt is None else False
            fits = fits or (prompt not in _SURE_PROMPTS and all(map(_is_conversation, values)))
        else:
            fits = True
        return Match(shape, None, *_both(shape)) if fits else None
    if prompt is None or (shape.chosen == "output" and (not is_list_of_texts(row["output"]) or is_graded(row))):
        return None
    return Match(shape, prompt, *_both(shape))


def _match_named(shape, row, named):
    """How a row is read whose chosen and rejected values only name the answers."""
    kind, *columns = named
    if kind == NAMED_SIDES:
        return _match_sides(_OF_SIDES, row)
    if kind == NAMED_COLUMNS:
        prompt = _prompt_column(row, columns)
        return Match(_PLAIN, prompt, *columns) if prompt else None
    prompt = _prompt_column(row, (*columns, *shape.columns))
    return Match(_OF_LISTS, prompt, *columns, *columns) if prompt else None


def _both(shape):
    return shape.chosen, shape.rejected


def _match_sides(shape, row):
    sides = verdicts.sides_of(tuple(row))
    if sides is None or not all(
        isinstance(row[name], str | list | dict | None) for name in (sides.first, sides.second)
    ):
        return None
    if not (sides.labels or sides.annotators or sides.scores or sides.unclear_scores):
        return None
    prompt = _prompt_of_sides(row, sides)
    if prompt is None and isinstance(row.get("history"), str):  # Stanford Human Preferences
        prompt = "history"
    return Match(shape, prompt, sides.first, sides.second)


def _prompt_of_sides(row, sides):
    """The column of the prompt: before all others one that shares a word with the answers (orig_instruction)."""
    own = set(words_of(sides.first)) & set(words_of(sides.second)) - {*ANSWER_WORDS}
    if own:
        for name in row:
            words = words_of(name)
            if own < set(words) and set(words) - own <= set(PROMPTS) and not is_missing(row[name]):
                return name
    return _prompt_column(row, (sides.first, sides.second))


def _match_ranking(shape, row):
    column = list_column(row)
    prompt = _prompt_column(row, (column,)) or ("info" if isinstance(row.get("info"), dict) else None)
    return Match(shape, prompt, column, column) if column and prompt else None


def _match_labelled(shape, row):
    answer, label = labelled_columns(row)
    if label is None:
        return None
    if answer in ("messages", "conversations"):
        return Match(shape, None, answer, label)
    prompt = _prompt_column(row, (answer, label))
    return Match(shape, prompt, answer, label) if prompt else None


_MATCHES = {PAIR: _match_pair, SIDES: _match_sides, RANKING: _match_ranking, LABELLED: _match_labelled}


def _prompt_column(row, taken):
    """The column of the prompt, one with a value before one without."""
    empty = None
    for name in PROMPTS:
        if name in row and name not in taken:
            if not is_missing(row[name]):
                return name
            empty = empty or name
    return empty


def _is_no_plain_text(value):
    if isinstance(value, str):
        return is_transcript(value) or _is_written_conversation(value)
    return isinstance(value, dict) or (isinstance(value, list) and not is_list_of_texts(value))


def _is_conversation(value):
    """Whether an answer has turns before it."""
    if isinstance(value, list):
        return len(value) > 1 and all(isinstance(turn, dict) for turn in value)
    return isinstance(value, str) and _is_no_plain_text(value)


def _is_written_conversation(text):
    if text.lstrip()[:1] not in ("[", "{"):
        return False
    try:
        return turns_written_in(text, ROLES) is not None
    except RowRefused:
        return True


def is_list_of_texts(value) -> bool:
    """Whether a value is a list of one or more texts."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def no_shape(row) -> RowRefused:
    """The refusal of a row that no shape fits, with what is nearest to one."""
    if {"chosen", "rejected"} <= row.keys():
        return RowRefused(
            "missing", "no prompt: 'chosen' and 'rejected' are neither conversations nor Human/Assistant transcripts"
        )
    if sides := verdicts.sides_of(tuple(row)):
        return verdicts.no_label(sides)
    for shape in SHAPES[:2]:
        absent = [name for name in shape.columns if name not in row]
        if len(absent) == 1:
            return RowRefused("missing", f"no '{absent[0]}' beside {names_of(row)}")
    if {"instruction", "output"} <= row.keys():
        return RowRefused("no known shape", f"'output' is {kind_of(row['output'])}, not a list of two answers")
    return RowRefused("no known shape", f"the columns {names_of(row)}")
