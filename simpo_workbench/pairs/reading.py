"""The pairs in one raw row: its prompt, its answers, and which of them is better. Standard library only.

The answer is the final assistant turn; everything before it is the prompt. With every shape a `system` column becomes
the first turn, `tools` are kept beside the pair, an `input` is joined to its `instruction`, and a `history` of turns
stands before a prompt that is one text.
"""

import re
from dataclasses import dataclass, field, replace

from . import media, verdicts
from .rankings import ranked_pairs, ranking_in, several
from .refused import NON_TEXT, RowRefused, excerpt, is_missing, kind_of
from .row_checks import check_answer, check_prompt, check_text
from .shapes import (
    ENDING_IN_CHOSEN,
    LABELLED,
    RANKING,
    SIDES,
    THREE_TEXTS,
    Match,
    is_list_of_texts,
    match_of,
    no_shape,
)
from .turns import (
    OBJECTS,
    answer_of,
    history_turns,
    interleaved,
    is_open_transcript,
    is_transcript,
    prompt_turns,
    text_key,
    tools_in,
)
from .written import value_of

#: Columns that add something to three texts.
_MORE_COLUMNS = frozenset({"system", "tools", "history", "chosen_turn", "rejected_turn"})
#: How a text begins that can be nothing else: it has two words, no transcript, no JSON, no path, no base64.
_TWO_WORDS = re.compile(r"(?!Human:|[Dd][Aa][Tt][Aa]:)\w\S{0,40} \S")
_THREE_COLUMNS = frozenset({"prompt", "chosen", "rejected"})


@dataclass(frozen=True)
class RowPair:
    """One pair of a row in our schema. used: the columns that it was made from; more: columns that were made for it.

    answers: how many the row has. graded_by: the column or key that ranks or rates them, empty where none does.
    """

    prompt: list[dict]
    chosen: str
    rejected: str
    used: frozenset[str]
    tools: tuple[dict, ...] = ()
    chosen_turn: dict | None = None
    rejected_turn: dict | None = None
    more: dict = field(default_factory=dict)
    answers: int = 2
    graded_by: str = ""


def read_row(row) -> RowPair:
    """The pair in one raw row (dict); the first one where it makes several. Errors: as in `row_pairs`."""
    return row_pairs(row)[0]


def row_pairs(row, policy="best_worst", scales=None, joins_input=False, found=None, mapping=None) -> list[RowPair]:
    """The pairs in one raw row (dict).

    policy: of `rankings.POLICIES`, for more than two answers. scales: {label column: verdicts.Scale} over all rows of
    the source; without it a label is read by this row alone. joins_input: the prompt is an Alpaca instruction under
    another name. found: the row's Match, where it is known. mapping: {our name: the file's column}, for the words of a
    refusal. Errors: RowRefused with one of the reasons missing, empty,
    identical, wrong type, unreadable, unknown role, different histories, more than one answer turn, two system texts,
    image or other non-text part, tie, unclear label, no label, no grades, one answer and a label, no known shape.
    """
    found = found or match_of(row)
    if found is None:
        raise no_shape(row)
    if found is THREE_TEXTS and not joins_input and (pair := _plain_pair(row)) is not None:
        return [pair]
    refuse_media(row, found)
    if found.shape.kind == LABELLED:
        raise RowRefused(LABELLED, f"'{found.chosen}' and '{found.rejected}': a row alone makes no pair")
    context = Context.of(row, found, joins_input)
    pairs, refusal = [], None
    answers, candidates, graded_by = _answers(row, found, policy, scales, mapping)
    for better, worse, used, more in candidates:
        try:
            pair = _row_pair(context, better, worse, used, more)
            pairs.append(
                pair if (answers, graded_by) == (2, "") else replace(pair, answers=answers, graded_by=graded_by)
            )
        except RowRefused as refused:  # another pair of the row may still be good
            refusal = refusal or refused
    if not pairs:
        raise refusal
    return pairs


def _plain_pair(row):
    """The pair of a row with three ordinary texts, as the rest of this file would read it; None for any other row."""
    texts = prompt, chosen, rejected = row["prompt"], row["chosen"], row["rejected"]
    if chosen == rejected or not _MORE_COLUMNS.isdisjoint(row) or not all(map(_TWO_WORDS.match, texts)):
        return None
    if len(row) > 3:
        refuse_media(row, THREE_TEXTS)
    check_text(prompt)
    check_text(chosen)
    check_text(rejected)
    return RowPair([{"role": "user", "content": prompt}], chosen, rejected, _THREE_COLUMNS)


def single_answer(row, found, joins_input=False) -> RowPair:
    """The prompt and the one answer of an unpaired row, as a pair whose rejected answer is empty."""
    context = Context.of(row, found, joins_input)
    history, text, turn = answer_of(row[found.chosen], found.chosen, is_transcript(context.prompt))
    prompt = history if context.prompt is None else prompt_turns(context.prompt, found.prompt)
    if context.prompt is None and not history:
        raise RowRefused("missing", f"no prompt: {found.chosen} holds only an answer")
    if context.prompt is not None and history and history != prompt:
        raise RowRefused("different histories", _first_difference(prompt, history))
    if is_open_transcript(context.prompt) and text is row[found.chosen]:
        text = text.removeprefix(" ")
    prompt = with_system(prompt, context.system)
    check_prompt(prompt, found.prompt or found.chosen)
    check_answer(text, turn, found.chosen)
    used = (context.used | {found.chosen, found.rejected}) & row.keys()
    return RowPair(prompt, text, "", used, context.tools, turn)


def refuse_media(row, found) -> None:
    """Raise RowRefused for a row with an image, a video or a sound: by a column's name or by its value."""
    texts = {found.prompt, found.chosen, found.rejected}
    column = media.media_column(row, texts)
    if column is None and found.chosen != found.rejected:
        answers = row.get(found.chosen), row.get(found.rejected)
        if all(isinstance(text, str) and media.is_path(text) for text in answers):
            column = found.chosen
    if column is not None:
        raise RowRefused(NON_TEXT, f"the column '{column}' holds {excerpt(row[column])}")


@dataclass(frozen=True)
class Context:
    """What all pairs of a row share: its prompt's value, system text, tools, and the columns that these came from."""

    found: Match
    prompt: object
    system: object
    tools: tuple[dict, ...]
    used: frozenset[str]
    columns: frozenset[str]
    left_over: dict = field(default_factory=dict)

    @classmethod
    def of(cls, row, found, joins_input=False):
        """The context of a row. Errors: RowRefused for a prompt that is missing or of the wrong type."""
        prompt, used = _prompt_value(row, found, joins_input)
        tools = tools_in(row.get("tools"))
        if tools is not None:
            used.add("tools")
        for name in (found.prompt, found.chosen, found.rejected):
            tools = tools or _tools_inside(row.get(name))
        turns = {"chosen_turn", "rejected_turn"} if found.chosen == "chosen" else set()
        used = frozenset(used | {"system"} | turns)
        left_over, value = {}, row.get(found.prompt)
        if found.prompt in OBJECTS and isinstance(value, dict) and (key := text_key(value)) is not None:
            left_over = {name: item for name, item in value.items() if name != key and not is_missing(item)}
        return cls(found, prompt, row.get("system"), tools or (), used, frozenset(row), left_over)


def _tools_inside(value):
    if isinstance(value, str) and value.lstrip()[:1] == "{":
        value = value_of(value)
    return tools_in(value.get("tools")) if isinstance(value, dict) and isinstance(value.get("messages"), list) else ()


def _prompt_value(row, found, joins_input):
    """(the prompt as text or turns, the columns it was made from); None where the answers contain it."""
    if found.prompt is None:
        return None, set()
    value, used = row[found.prompt], {found.prompt}
    if is_missing(value):
        raise RowRefused("missing", f"no {found.prompt}")
    if found.prompt in OBJECTS and isinstance(value, dict):
        key = text_key(value)
        value = value if key is None else value[key]
    if found.prompt == "instruction" or joins_input:
        if not isinstance(value, str):
            raise RowRefused("wrong type", f"{found.prompt} is {kind_of(value)}, expected text")
        value = _joined(value, row.get("input"))
        used.add("input")
    history = row.get("history")
    if is_missing(history) or not history:
        return value, used | {"history"}
    if found.prompt == "history":
        return value, used
    if isinstance(value, str) and not is_transcript(value) and (turns := history_turns(history)) is not None:
        return [*turns, *prompt_turns(value, found.prompt)], used | {"history"}
    if found.prompt == "instruction":
        raise RowRefused("wrong type", f"history is {kind_of(history)}, expected a list of [question, answer]")
    return value, used


def _joined(instruction, extra_input):
    if not is_missing(extra_input) and not isinstance(extra_input, str):
        raise RowRefused("wrong type", f"input is {kind_of(extra_input)}, expected text")
    # LLaMA-Factory joins the two with one line break
    if is_missing(extra_input) or not extra_input:
        return instruction
    return f"{instruction}\n{extra_input}" if instruction else extra_input


def _answers(row, found, policy, scales, mapping):
    """(how many answers, [(better value, worse value, columns used, columns made)] of every pair, what grades them).

    The last is the column or key of a ranking, else an empty text.
    """
    if found.shape.kind == SIDES:
        sides = verdicts.sides_of(tuple(row))
        scales = scales if scales is not None else scales_of([row], sides)
        side, labels, margin = verdicts.winner(row, sides, scales, mapping)
        if side == verdicts.TIE:
            shown = {name: row.get(name) for name in labels} if len(labels) > 1 else row.get(labels[0])
            raise RowRefused("tie", f"{', '.join(labels)} is {excerpt(shown)}")
        names = (sides.first, sides.second)[::side]
        more = {} if margin is None else {"rating_margin": margin}
        used = {*names, *sides.annotators, *labels, *(set(sides.labels) & {"chosen", "rejected"})}
        return 2, [(row[names[0]], row[names[1]], used, more)], ""
    if found.shape.kind == RANKING:
        ranking = ranking_in(row, found.chosen)
    elif found.chosen == "output":
        if len(row["output"]) != 2:
            raise RowRefused(
                "wrong type",
                f"output is a list of {len(row['output'])}, expected [chosen, rejected], or a column `ranks` or"
                " `ratings` with one number for each",
            )
        return 2, [(*row["output"], {"output"}, {})], ""
    else:
        both = (found.chosen, found.rejected)
        values = [_alternatives(_whole_turn(row, name)) for name in both]
        if len(values[0]) == len(values[1]) == 1:
            return 2, [(values[0][0], values[1][0], set(both), {})], ""
        ranking = several(values, both)
    candidates = [
        (better.value, worse.value, set(ranking.used), _margins(ranking, better, worse))
        for better, worse in ranked_pairs(ranking.answers, policy)
    ]
    return len(ranking.answers), candidates, ranking.graded_by if found.shape.kind == RANKING else ""


def scales_of(rows, sides) -> dict:
    """{label column: verdicts.Scale} over rows that have the same two answers."""
    scales = {}
    for row in rows:
        for name in (*sides.labels, *sides.annotators):
            scales.setdefault(name, verdicts.Scale()).add(name, sides, row)
    return scales


def _whole_turn(row, name):
    """The answer's value, or the whole turn that `Pairs.df` keeps beside a text that is only a part of it."""
    turn = row.get(f"{name}_turn") if name in ("chosen", "rejected") else None
    turn = value_of(turn) if isinstance(turn, str) else turn
    return turn if isinstance(turn, dict) and turn.get("content") == row[name] else row[name]


def _alternatives(value):
    """The answers of one side: the texts or conversations of a list of such, else the one that it is."""
    if isinstance(value, list) and value and (is_list_of_texts(value) or all(isinstance(item, list) for item in value)):
        return value
    return [value]


def _margins(ranking, better, worse):
    if ranking.rated:
        margin = better.grade - worse.grade
        return {"chosen_rating": better.grade, "rejected_rating": worse.grade, "rating_margin": margin}
    return {"rank_margin": better.grade - worse.grade} if ranking.graded_by in ("rank", "ranks") else {}


def _row_pair(context, better, worse, used, more):
    found, prompt_value = context.found, context.prompt
    if (conversations := interleaved(prompt_value, better, worse)) is not None:
        prompt_value, (better, worse) = None, conversations
        same = [conversation[:-1] for conversation in conversations]
        if same[0] != same[1]:
            raise RowRefused("different histories", _first_difference(*same))
    elif found.shape.kind == SIDES:
        better, worse = _only_text(better), _only_text(worse)
    prompt, (chosen, chosen_turn), (rejected, rejected_turn) = _combine(prompt_value, found, better, worse)
    prompt = with_system(prompt, context.system)
    where = found.prompt or found.chosen
    check_prompt(prompt, where)
    for side, text, turn in ((found.chosen, chosen, chosen_turn), (found.rejected, rejected, rejected_turn)):
        check_answer(text, turn, side)
    if (chosen, chosen_turn) == (rejected, rejected_turn):
        raise RowRefused("identical", f"both answers are {excerpt(chosen)}")
    used = (context.used | used) & context.columns
    if context.left_over:  # what stands beside the prompt's text in its object
        more = more | {found.prompt: context.left_over}
    return RowPair(prompt, chosen, rejected, used, context.tools, chosen_turn, rejected_turn, more)


def _only_text(value):
    """The text of a list of one, as PAIR has it; any other value as it is."""
    return value[0] if is_list_of_texts(value) and len(value) == 1 else value


def _combine(prompt_value, found, chosen_value, rejected_value):
    """Prompt turns and the two answers; turns before the answers must agree with each other and the prompt."""
    in_transcript = prompt_value is None or is_transcript(prompt_value)
    chosen_history, chosen, chosen_turn = answer_of(chosen_value, found.chosen, in_transcript)
    rejected_history, rejected, rejected_turn = answer_of(rejected_value, found.rejected, in_transcript)
    _require_same_form((chosen_value, chosen), (rejected_value, rejected), found)
    if chosen_history and rejected_history and chosen_history != rejected_history:
        raise RowRefused("different histories", _first_difference(chosen_history, rejected_history))
    history = chosen_history or rejected_history
    answers = (chosen, chosen_turn), (rejected, rejected_turn)
    if prompt_value is None:
        # ms-swift gives the rejected answer alone
        if not chosen_history or (not rejected_history and found.chosen not in ENDING_IN_CHOSEN):
            side = found.chosen if not chosen_history else found.rejected
            raise RowRefused("missing", f"no prompt: {side} holds only an answer")
        return history, *answers
    prompt = prompt_turns(prompt_value, found.prompt)
    if is_open_transcript(prompt_value):
        # the prompt ends in "Assistant:", so a text answer's first space is the separator's
        chosen = chosen.removeprefix(" ") if chosen is chosen_value else chosen
        rejected = rejected.removeprefix(" ") if rejected is rejected_value else rejected
        answers = (chosen, chosen_turn), (rejected, rejected_turn)
    if not history or history == prompt:
        return prompt, *answers
    if chosen_history and rejected_history:
        if history[: len(prompt)] == prompt:
            return history, *answers
        if history[0]["role"] == "assistant":
            return prompt + history, *answers
        # UltraFeedback keeps the last user turn as `prompt` and the whole conversation in both answers
        if isinstance(prompt_value, str) and history[-1]["content"].strip() == prompt_value.strip():
            return history, *answers
    raise RowRefused(
        "different histories",
        f"'{found.prompt}' and the turns before the answers: {_first_difference(prompt, history)}",
    )


def _require_same_form(chosen, rejected, found):
    """Raise RowRefused where one text spells a turn and the other does not: one answer would lose its JSON.

    chosen, rejected: (value in the row, text read from it). ms-swift has a conversation beside a text.
    """
    if not (isinstance(chosen[0], str) and isinstance(rejected[0], str)) or found.chosen in ENDING_IN_CHOSEN:
        return
    spelled = [text is not value and not is_transcript(value) for value, text in (chosen, rejected)]
    if spelled[0] != spelled[1]:
        names = ("the better answer", "the worse answer") if found.chosen == found.rejected else _both(found)
        turn, other = names if spelled[0] else names[::-1]
        value = rejected[0] if spelled[0] else chosen[0]
        raise RowRefused(
            "wrong type", f"{turn} spells a turn as text, {other} does not ({excerpt(value)}): give both answers alike"
        )


def _both(found):
    return found.chosen, found.rejected


def with_system(prompt, system) -> list[dict]:
    """The prompt with a system text as its first turn; empty texts are none. Errors: RowRefused for two texts."""
    if is_missing(system):
        return prompt
    if not isinstance(system, str):
        raise RowRefused("wrong type", f"system is {kind_of(system)}, expected text")
    if not system.strip():
        return prompt
    if prompt and prompt[0]["role"] == "system" and prompt[0]["content"].strip():
        if prompt[0]["content"] != system:
            raise RowRefused(
                "two system texts", f"the column says {excerpt(system)}, the first turn {excerpt(prompt[0]['content'])}"
            )
        return prompt
    rest = prompt[1:] if prompt and prompt[0]["role"] == "system" else prompt
    return [{"role": "system", "content": system}, *rest]


def _first_difference(one, other):
    for number, (left, right) in enumerate(zip(one, other, strict=False), 1):
        if left != right:
            return f"turn {number} is {excerpt(left['content'])} here and {excerpt(right['content'])} there"
    return f"{len(one)} turns here and {len(other)} there"
