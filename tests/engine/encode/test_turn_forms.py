"""What a user would lose: a tool list that the prompts trained on do not have, calls that vanish, reasoning that is
dropped; all without a word.
"""

import pytest
import tiny

from simpo_workbench.engine.encode import mismatch
from simpo_workbench.engine.encode.rendered_pair import NO_CALLS
from simpo_workbench.engine.encode.tokens import ChatEncoder
from simpo_workbench.pairs.pair import Pair

USER = {"role": "user", "content": "Weather in Lima?"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
#: Takes tools, calls with arguments as a mapping, results, and reasoning in a field.
CALLING = (
    "{% if tools %}TOOLS{% for t in tools %} {{ t.function.name }}{% endfor %} {% endif %}{% for m in messages %}{{"
    " '<|im_start|>' + m.role + '\n' }}{% if m.reasoning_content %}{{ '<think>\n' + m.reasoning_content +"
    " '\n</think>\n\n' }}{% endif %}{{ m.content or '' }}{% for c in m.tool_calls or [] %}CALL {{ c.function.name }}{%"
    " for k, v in c.function.arguments.items() %} {{ k }}={{ v }}{% endfor %}{% endfor %}<|im_end|>\n{% endfor %}{% if"
    " add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
#: Joins arguments as text, and writes calls only of turns without content, as DeepSeek's do.
TEXT_ARGUMENTS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if not m.content %}{% for c in m.tool_calls %}{{"
    " 'CALL ' + c.function.name + ' ' + c.function.arguments }}{% endfor %}{% else %}{{ m.content }}{% endif"
    " %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def call(arguments):
    calls = [{"id": "abcde1234", "type": "function", "function": {"name": "weather", "arguments": arguments}}]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def encoded(template, prompt=(USER,), chosen="Wet.", rejected="Dry.", **more):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    coder = ChatEncoder(tokenizer)
    some, report = coder.encode_pairs([Pair("0123456789abcdef", tuple(prompt), chosen, rejected, **more)])
    return [tuple(map(tokenizer.decode, (one.prompt_ids, one.chosen_ids, one.rejected_ids))) for one in some], report


@pytest.mark.parametrize("tool", [TOOL, TOOL["function"]], ids=["wrapped", "bare"])
def test_tools_reach_a_template_that_takes_them_and_are_said_to_be_ignored_by_others(tool):
    ((prompt, chosen, _),), report = encoded(CALLING, tools=(tool,))
    assert prompt.startswith("TOOLS weather <|im_start|>user")
    assert (chosen, report.mismatches) == ("Wet.<|im_end|>", {})
    _, report = encoded(tiny.CHATML, tools=(tool,))
    assert report.mismatches == {mismatch.TOOLS: 1}
    assert "no place for tools" in str(report)


@pytest.mark.parametrize("arguments", [{"city": "Lima"}, '{"city": "Lima"}'], ids=["mapping", "text"])
@pytest.mark.parametrize(
    ("template", "written"), [(CALLING, "CALL weather city=Lima"), (TEXT_ARGUMENTS, 'CALL weather {"city": "Lima"}')]
)
def test_calls_are_written_in_the_form_that_the_template_reads_and_scored_when_they_are_the_answer(
    template, written, arguments
):
    history = (USER, call(arguments), {"role": "tool", "tool_call_id": "abcde1234", "content": "rain"})
    ((prompt, _, _),), report = encoded(template, prompt=history)
    assert f"<|im_start|>assistant\n{written}<|im_end|>" in prompt
    assert "<|im_start|>tool\nrain<|im_end|>" in prompt
    assert report.mismatches == {}
    ((_, chosen, rejected),), report = encoded(template, chosen="", chosen_turn=call(arguments))
    assert (chosen, rejected) == (f"{written}<|im_end|>", "Dry.<|im_end|>")
    assert report.mismatches == {}


def test_calls_that_a_template_does_not_write_are_ignored_aloud_in_history_and_refused_as_an_answer():
    history = (USER, call({"city": "Lima"}), {"role": "tool", "content": "rain"})
    _, report = encoded(tiny.CHATML, prompt=history)
    assert report.mismatches == {mismatch.CALLS: 1}
    some, report = encoded(tiny.CHATML, chosen="", chosen_turn=call({"city": "Lima"}))
    assert some == []
    assert report.dropped == {NO_CALLS: 1}


@pytest.mark.parametrize("key", ["reasoning_content", "thinking"])
def test_reasoning_in_a_field_is_rendered_as_the_template_does_or_kept_or_said_to_be_ignored(key):
    turn = {"role": "assistant", "content": "Wet.", key: "It is winter."}
    ((_, chosen, rejected),), report = encoded(CALLING, chosen_turn=turn)
    assert chosen == "<think>\nIt is winter.\n</think>\n\nWet.<|im_end|>"
    assert rejected == "Dry.<|im_end|>"
    drops = tiny.CHATML.replace("m['content']", "m['content'].split('</think>\n\n')[-1]")
    ((_, chosen, _),), report = encoded(drops, chosen_turn=turn)
    assert chosen == "<think>\nIt is winter.\n</think>\n\nWet.<|im_end|>"
    assert report.mismatches == {mismatch.KEPT: 1}
    ((_, chosen, _),), report = encoded(tiny.CHATML, chosen_turn=turn)
    assert chosen == "Wet.<|im_end|>"
    assert report.mismatches == {mismatch.REASONING: 1}
