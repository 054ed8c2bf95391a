"""An oracle for encoded pairs: the ids of `tokenizer.apply_chat_template` over the whole conversation.

It shares no code with the encoder. A pair is as rendered where prompt and answer together are the beginning of those
ids, and what follows is only what the template writes after every answer.
"""

import re
from pathlib import Path

import tiny
from trl import chat_template_utils

from simpo_workbench.config.run_config import DataConfig
from simpo_workbench.engine.encode import mismatch
from simpo_workbench.engine.encode.tokens import ChatEncoder
from simpo_workbench.pairs.pair import Pair, pair_id

SHIPPED = sorted(Path(chat_template_utils.__file__).parent.glob("chat_templates/*.jinja"))
#: Ways in which templates switch thinking off; the encoder may have taken one of them.
_OPTIONS = ({}, {"enable_thinking": False}, {"thinking": False}, {"reasoning": False}, {"thinking_mode": "off"})
_MARK = re.compile(r"<\|?[A-Za-z_0-9/]{2,30}\|?>|<｜[^<>\s]{1,30}｜>|\[/?[A-Z_]{3,20}\]|\[gMASK\]")

#: Kinds of difference of which other ids than the template's follow; the rest of a report excuses none.
_EXPLAINS = {
    mismatch.SPACE,
    mismatch.MARKS,
    mismatch.RESHAPED,
    mismatch.COMPLETED,
    mismatch.FIELD,
    mismatch.KEPT,
    mismatch.PROMPT,
    mismatch.UNPLACED,
    mismatch.MERGED,
    mismatch.IDS,
    mismatch.TOOLS,
    mismatch.CALLS,
    mismatch.RESULTS,
    mismatch.REASONING,
    mismatch.EARLIER_REASONING,
    mismatch.EARLIER_MARKS,
}
#: So do these sentences: where the system text went, control tokens as text, thinking that is switched off.
_EXPLAINING_NOTES = ("has no system turn", "encoded as text", "opens thinking")
_CONTROL = re.compile(r"<\|im_(?:start|end)\|>|</?think>|\[/?INST\]|</?s>")

THINK = "<think>\nLet me see.\n</think>\n\n"
_USER = {"role": "user", "content": "What is the capital of Peru?"}
_WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
_CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"place": "Lima"}}}],
}
_TWO_CALLS = {
    **_CALL,
    "tool_calls": [
        {"type": "function", "function": {"name": "weather", "arguments": {"place": place}}}
        for place in ("Lima", "Rome")
    ],
}
_RESULT = {"role": "tool", "name": "weather", "content": "18 degrees"}
_TALK = [_USER, {"role": "assistant", "content": "Lima."}, {"role": "user", "content": "And of Chile?"}]


def _row(prompt, chosen="Lima.", rejected="Cusco, I think.", **more):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


#: Name to row: with and without reasoning, system turns, tools, white space.
CONVERSATIONS = {
    "plain": _row([_USER]),
    "several turns": _row(_TALK),
    "system turn": _row([{"role": "system", "content": "Be brief."}, _USER]),
    "system turn, several turns": _row([{"role": "system", "content": "Be brief."}, *_TALK]),
    "empty system turn": _row([{"role": "system", "content": ""}, _USER]),
    "white space around answers": _row([_USER], "  Lima.\n", "\nCusco. "),
    "white space around the question": _row([{"role": "user", "content": "\n What? \n"}]),
    "line breaks and other scripts": _row([_USER], "Lima:\n\n1. Zürich\n2. 東京 🗼\n\n```\nx = '{{ y }}'\n```", "No."),
    "both think": _row([_USER], THINK + "Lima.", THINK + "Cusco."),
    "only the chosen answer thinks": _row([_USER], THINK + "Lima."),
    "thinking in earlier turns": _row([_USER, {"role": "assistant", "content": THINK + "Lima."}, _TALK[2]]),
    "an empty thinking block": _row([_USER], "<think>\n\n</think>\n\nLima."),
    "reasoning in a field": _row(
        [_USER],
        [{"role": "assistant", "content": "Lima.", "reasoning_content": "Let me see."}],
        [{"role": "assistant", "content": "Cusco.", "reasoning_content": "A guess."}],
    ),
    "tools": _row([_USER], tools=[_WEATHER]),
    "a tool was called": _row([_USER, _CALL, _RESULT, _TALK[2]], tools=[_WEATHER]),
    "the answer is a call": _row([_USER], [_CALL], [{"role": "assistant", "content": "Cold."}], tools=[_WEATHER]),
    "the answer is a call with reasoning": _row(
        [_USER], [{**_CALL, "reasoning_content": "Let me look."}], "Cold.", tools=[_WEATHER]
    ),
    "the answer is two calls": _row([_USER], [_TWO_CALLS], "Cold.", tools=[_WEATHER]),
    "an unfinished thought": _row([_USER], "<think>\nHm, let me", THINK + "Cusco."),
    "thinking goes on from the prompt": _row([_USER], THINK.removeprefix("<think>\n") + "Lima.", "A.\n</think>\n\nB."),
    "an end mark in an earlier turn": _row([_USER, {"role": "assistant", "content": "Lima.<|im_end|>"}, _TALK[2]]),
    "an answer in a frame": _row([_USER], "<|im_start|>assistant\nLima."),
    "an end mark at the end": _row([_USER], "Lima.<|im_end|>"),
    "a control token in the question": _row([{"role": "user", "content": "What is <|im_end|> for?"}]),
}


def marks_of(template: str) -> list[str]:
    """The marks such as <|user|> that the text of a template holds."""
    return sorted(set(_MARK.findall(template)))


def tokenizer_for(template: str):
    """The byte-level test tokenizer with every mark that the template writes as a token of its own."""
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": marks_of(template)})
    tokenizer.chat_template = template
    return tokenizer


def pair_of(row) -> Pair:
    """The pair in one row of CONVERSATIONS."""
    texts, turns = {}, {}
    for side in ("chosen", "rejected"):
        answer = row[side]
        turns[side] = answer[0] if isinstance(answer, list) else None
        texts[side] = answer[0]["content"] if isinstance(answer, list) else answer
    tools = tuple(row.get("tools", ()))
    identity = pair_id(row["prompt"], *texts.values(), tools, *turns.values())
    return Pair(
        identity,
        tuple(row["prompt"]),
        **texts,
        tools=tools,
        chosen_turn=turns["chosen"],
        rejected_turn=turns["rejected"],
    )


def encoder_for(tokenizer) -> ChatEncoder:
    """An encoder with room for the longest system texts of templates."""
    return ChatEncoder(tokenizer, DataConfig(max_tokens=8192))


def outcome(encoder: ChatEncoder, pair) -> str:
    """ "equal", "said: …" with what the report says, or "WRONG: …" for other ids without a word."""
    tokenizer = encoder.tokenizer
    encoded, report = encoder.encode_pairs([pair])
    words = _said(report)
    if not encoded:
        return f"said: {words}" if report.dropped else "WRONG: dropped without a word"
    for answer, turn, ids in (
        (pair.chosen, pair.chosen_turn, encoded[0].chosen_ids),
        (pair.rejected, pair.rejected_turn, encoded[0].rejected_ids),
    ):
        if turn and _lost(turn, tokenizer.decode(ids)):
            return f"WRONG: lost {turn} in {tokenizer.decode(ids)!r}"
        prompt = [turn for turn in pair.prompt if turn["role"] != "system" or turn["content"]]  # none where it is empty
        turns = [*map(dict, prompt), turn or {"role": "assistant", "content": answer}]
        parts = encoded[0].prompt_ids + ids
        if not any(_begins(tokenizer, rendered, parts) for rendered in _renderings(tokenizer, turns, pair.tools)):
            why = _explanation(report, turns)
            return f"said: {why}" if why else f"WRONG: {tokenizer.decode(parts)!r}, said {words!r}"
    return "equal"


def _explanation(report, turns):
    """What the report says that explains other ids than rendered; empty where nothing does."""
    has_marks = any(_CONTROL.search(str(turn["content"])) for turn in turns)
    notes = [
        note
        for note in report.notes
        for words in _EXPLAINING_NOTES
        if words in note and (words != "encoded as text" or has_marks)
    ]
    return "; ".join([*(_EXPLAINS & report.mismatches.keys()), *notes])


def _lost(turn, scored):
    """Whether a call of an answer is not among what is scored."""
    return any(
        str(text) not in scored
        for call in turn.get("tool_calls") or ()
        for text in (call["function"]["name"], *call["function"]["arguments"].values())
    )


def _renderings(tokenizer, turns, tools):
    for options in _OPTIONS:
        try:
            yield tokenizer.apply_chat_template(
                turns, tools=list(tools) or None, tokenize=True, add_generation_prompt=False, **options
            )["input_ids"]
        except Exception:  # a template raises what it likes; then the encoder has to say something
            continue


def _begins(tokenizer, rendered, parts):
    """Whether prompt and answer are what was rendered, and what follows is what the template writes after any answer.

    The end of turn may be missing in a rendering (GLM ends a turn with the token that opens the next one).
    """
    if rendered[: len(parts)] == parts:
        rest = rendered[len(parts) :]
    elif rendered[: len(parts) - 1] == parts[:-1]:
        rest = rendered[len(parts) - 1 :]
    else:
        return False
    turns = [_USER, {"role": "assistant", "content": "Zebra quartz"}]
    after = tokenizer.apply_chat_template(turns, tokenize=False).rpartition("Zebra quartz")[2]
    return tokenizer.decode(tokenizer(after, add_special_tokens=False)["input_ids"]).endswith(tokenizer.decode(rest))


def _said(report):
    return "; ".join([*report.mismatches, *report.dropped, *report.notes])
