"""What a user would lose: a tool call, a part of an answer or an unfinished thought that is trained as something else
than the data say, without a word.
"""

import pytest
import tiny

from simpo_workbench.engine.encode import mismatch
from simpo_workbench.engine.encode.rendered_pair import NO_CALLS
from simpo_workbench.engine.encode.tokens import ChatEncoder
from simpo_workbench.pairs.pair import Pair

USER = {"role": "user", "content": "Will it rain?"}
#: What follows writes an assistant's turn as m.
_START = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role != 'assistant' %}{{ m.content }}{% else %}"
_END = "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_CALLS = "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}"
#: Writes calls, and leaves out any thinking before the answer.
WITHOUT_REASONING = _START + "{{ (m.content or '').split('</think>')[-1] }}" + _CALLS + _END
#: Writes reasoning that is given in its field, also where there is none.
WITH_FIELD = _START + "<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{{ m.content }}" + _END
#: Writes names of calls and no arguments.
ONLY_NAMES = _START + "{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}{% if loop.first %}"
ONLY_NAMES += "{% for key in c.function.arguments %}{% if key != 'day' %}{{ c.function.arguments[key] }}{% endif %}"
ONLY_NAMES += "{% endfor %}{% endif %}{% endfor %}" + _END
#: Writes the first call only.
FIRST_CALL = _START + "{{ m.content }}" + _CALLS.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]") + _END


def encoder(template):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    return ChatEncoder(tokenizer)


def calls(*arguments, **more):
    functions = [{"type": "function", "function": {"name": "rain", "arguments": given}} for given in arguments]
    return {"role": "assistant", "content": "", "tool_calls": functions, **more}


def encoded(template, chosen="Yes.", rejected="No.", prompt=(USER,), **more):
    """([prompt, chosen, rejected as text] or None, the report)."""
    coder = encoder(template)
    pairs, report = coder.encode_pairs([Pair("0" * 16, tuple(prompt), chosen, rejected, **more)])
    texts = [list(map(coder.tokenizer.decode, (p.prompt_ids, p.chosen_ids, p.rejected_ids))) for p in pairs]
    return (texts or [None])[0], report


def test_a_call_beside_reasoning_that_the_template_drops_never_vanishes():
    turn = calls({"city": "Oslo"}, reasoning_content="Let me look.")
    texts, report = encoded(WITHOUT_REASONING, chosen="", chosen_turn=turn)
    assert (texts, report.dropped) == (None, {NO_CALLS: 1})
    texts, _ = encoded(WITHOUT_REASONING, chosen="", chosen_turn=calls({"city": "Oslo"}))
    assert texts[1] == '<call>rain {"city": "Oslo"}<|im_end|>'


@pytest.mark.parametrize(
    ("template", "turn"),
    [
        (ONLY_NAMES, calls({"city": "Oslo", "day": 3})),
        (ONLY_NAMES, calls({"city": "Oslo"}, {"city": "Bergen"})),
        (FIRST_CALL, calls({"city": "Oslo"}, {"city": "Oslo"})),
        (WITHOUT_REASONING.replace("{{ (m.content", "{% if not m.tool_calls %}{{ (m.content", 1).replace(
            "[-1] }}", "[-1] }}{% endif %}", 1), calls({"city": "Oslo"}, content="I shall look.")),
    ],
    ids=["an argument", "the second call's argument", "the second call", "the text beside it"],
)  # fmt: skip
def test_an_answer_of_which_the_template_writes_only_some_calls_arguments_or_text_is_refused(template, turn):
    texts, report = encoded(template, chosen=turn["content"], chosen_turn=turn)
    assert (texts, report.dropped) == (None, {NO_CALLS: 1})


def test_arguments_are_found_in_whatever_form_the_template_writes_them():
    given = {"city": 'Zürich "West"', "days": [1, 2.5], "now": True, "unit": None, "more": {"path": "a\nb"}}
    texts, report = encoded(WITHOUT_REASONING, chosen="", chosen_turn=calls(given, given))
    assert texts is not None, report
    as_text = WITHOUT_REASONING.replace("arguments | tojson", "arguments")
    assert encoded(as_text, chosen="", chosen_turn=calls(given))[0] is not None


def test_calls_of_earlier_turns_are_compared_too():
    history = (USER, calls({"city": "Oslo", "day": 3}), {"role": "tool", "content": "no"}, USER)
    assert mismatch.CALLS in encoded(ONLY_NAMES, prompt=history)[1].mismatches
    assert mismatch.CALLS not in encoded(WITHOUT_REASONING, prompt=history)[1].mismatches


def test_reasoning_of_earlier_turns_that_is_left_out_is_counted():
    history = (USER, {"role": "assistant", "content": "Yes.", "reasoning_content": "Clouds."}, USER)
    texts, report = encoded(WITHOUT_REASONING, prompt=history)
    assert report.mismatches == {mismatch.EARLIER_REASONING: 1}
    assert texts is not None
    assert encoded(WITH_FIELD, prompt=history)[1].mismatches == {}


def test_an_unfinished_thought_is_not_finished_for_the_user():
    texts, report = encoded(WITH_FIELD, "<think>\nHm, let me", "<think>\nClouds.\n</think>\n\nNo.")
    assert texts is None
    assert report.mismatches.keys() & {mismatch.OPEN, mismatch.DOUBLED}


def test_an_answer_that_lost_text_is_scored_as_in_the_data():
    texts, report = encoded(WITHOUT_REASONING, "Write <think>x</think> first.")
    assert texts[1] == "Write <think>x</think> first.<|im_end|>"
    assert report.mismatches == {mismatch.UNPLACED: 1}


def test_the_system_text_goes_to_the_first_user_turn_or_the_row_is_refused():
    greeting = {"role": "assistant", "content": "Hello."}
    system = {"role": "system", "content": "Be brief."}
    coder = encoder(tiny.GEMMA)
    assert coder.template.with_system_turn([system, greeting, USER]) == [
        greeting, {"role": "user", "content": "Be brief.\n\nWill it rain?"},
    ]  # fmt: skip
    assert "None" not in coder.template.with_system_turn([system, {"role": "user", "content": None}])[0]["content"]
    good = Pair("1" * 16, (USER,), "Yes.", "No.")
    some, report = coder.encode_pairs([Pair("0" * 16, (system, greeting), "Yes.", "No."), good])
    assert [one.pair_id for one in some] == ["1" * 16]
    assert "no user turn" in str(report)
