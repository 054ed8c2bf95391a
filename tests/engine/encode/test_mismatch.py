"""What a user would lose: answers trained inside an open thinking block, thinking opened twice, tools that nobody
wrote, a date that differs between training and scoring; all without a word.
"""

from dataclasses import replace
from datetime import datetime

import pytest
import tiny

from simpo_workbench.config.run_config import DataConfig
from simpo_workbench.engine.encode import mismatch
from simpo_workbench.engine.encode.template_values import TemplateValues
from simpo_workbench.engine.encode.tokens import ChatEncoder
from simpo_workbench.pairs.pair import Pair

USER = {"role": "user", "content": "What is the capital of Peru?"}
THOUGHT = "<think>\nIt is on the coast.\n</think>\n\n"
#: Opens thinking in the generation prompt and drops it from answers, without any switch.
DROPPING = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|start|>{{ m.content }}{% else %}<|end|>{{"
    " m.content.split('</think>')[-1] }}<|eot|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|end|><think>\n{%"
    " endif %}"
)
_TURNS = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
_CONTENT = (
    "{% endif %}{{ m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
)
#: Writes an empty block in front of plain answers, and opens one in the generation prompt unless told not to.
SWITCHED = (
    _TURNS
    + "{% if '<think>' not in m.content %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    + _CONTENT
    + "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% else %}{{"
    " '<think>\n' }}{% endif %}{% endif %}"
)
#: Opens thinking in the generation prompt and writes plain answers with another empty block; no switch.
UNSWITCHED = (
    _TURNS + "{% if '<think>' not in m.content %}<think></think>{% endif %}" + _CONTENT + "{{ '<think>\n' }}{% endif %}"
)
#: Leaves a block open that it opens itself in front of every answer.
NEVER_CLOSED = _TURNS + "{{ '<think>\n' }}" + _CONTENT + "{{ '<think>\n' }}{% endif %}"
#: Closes an empty block in the generation prompt.
CLOSED = (
    _TURNS
    + "{% if '<think>' not in m.content %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    + _CONTENT
    + "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)
#: Puts nothing after an answer: the next turn's opener ends it.
UNENDED = (
    "{% for m in messages %}{{ '<|start|>' if m.role == 'user' else '<|end|>' }}{{ '\n' + m.content | trim }}{% endfor"
    " %}{% if add_generation_prompt %}<|end|>{% endif %}"
)


def encoder(template, values=None, **data):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    return ChatEncoder(tokenizer, DataConfig(**data), values)


def pair(chosen="Lima.", rejected="Cusco.", prompt=(USER,), **more):
    return Pair("0123456789abcdef", tuple(prompt), chosen, rejected, where="line 7", **more)


def texts(encoder, some):
    """(prompt, chosen, rejected) as text, and the report."""
    encoded, report = encoder.encode_pairs([some])
    (one,) = encoded
    return tuple(encoder.tokenizer.decode(ids) for ids in (one.prompt_ids, one.chosen_ids, one.rejected_ids)), report


@pytest.mark.parametrize(
    ("template", "prompt_end"),
    [
        (DROPPING, "Peru?<|end|>"),
        (SWITCHED, "assistant\n<think>\n\n</think>\n\n"),
        (UNSWITCHED, "assistant\n<think></think>"),
        (CLOSED, "assistant\n<think>\n\n</think>\n\n"),
    ],
)
def test_plain_answers_are_never_inside_an_open_block_in_scoring_and_sampling(template, prompt_end):
    coder = encoder(template)
    (prompt, chosen, rejected), report = texts(coder, pair())
    assert prompt.endswith(prompt_end)
    assert (chosen.startswith("Lima.<"), rejected.startswith("Cusco.<")) == (True, True)
    assert coder.tokenizer.decode(coder.prompt_ids([USER])) == prompt
    assert report.mismatches == {}
    assert ("opens thinking" in str(report)) == (template != CLOSED)


def test_the_switch_is_named_and_a_users_own_setting_wins():
    assert "enable_thinking: false" in str(encoder(SWITCHED).encode_pairs([pair()])[1])
    coder = encoder(SWITCHED, template_options={"enable_thinking": True})
    assert coder.template.thinking_switch is None
    (prompt, chosen, _), _ = texts(coder, pair())
    assert prompt + chosen == coder.template.render(
        [USER, {"role": "assistant", "content": "Lima."}], add_generation_prompt=False
    ).removesuffix("\n")


@pytest.mark.parametrize("template", [DROPPING, SWITCHED, UNSWITCHED])
@pytest.mark.parametrize("leaves_out", ["", "<think>\n"], ids=["whole", "without the opening tag"])
def test_thinking_of_both_answers_goes_on_from_the_opened_block(template, leaves_out):
    coder = encoder(template)
    (prompt, chosen, rejected), report = texts(
        coder, pair(THOUGHT.removeprefix(leaves_out) + "Lima.", THOUGHT.removeprefix(leaves_out) + "Cusco.")
    )
    assert prompt.endswith("<think>\n")
    assert chosen.startswith("It is on the coast.\n</think>\n\nLima.<")
    assert rejected.startswith("It is on the coast.\n</think>\n\nCusco.<")
    assert report.thinking == 2
    assert coder.tokenizer.decode(coder.prompt_ids([USER])).endswith("<think>\n")
    assert report.mismatches.keys() <= {mismatch.KEPT, mismatch.COMPLETED}
    assert (mismatch.KEPT in report.mismatches) == (template == DROPPING)


@pytest.mark.parametrize("template", [DROPPING, SWITCHED, UNSWITCHED, CLOSED])
def test_where_one_answer_thinks_both_begin_in_front_of_the_block_and_it_is_opened_once(template):
    (prompt, chosen, rejected), report = texts(encoder(template), pair(THOUGHT + "Lima."))
    assert "<think>" not in prompt
    assert chosen.startswith(THOUGHT + "Lima.<")
    expected = {
        DROPPING: "Cusco.",
        SWITCHED: "<think>\n\n</think>\n\nCusco.",
        UNSWITCHED: "<think></think>Cusco.",
        CLOSED: "<think>\n\n</think>\n\nCusco.",
    }
    assert rejected.startswith(expected[template] + "<")
    assert report.dropped == {}


def test_an_empty_block_of_the_data_is_the_templates_own():
    (prompt, chosen, rejected), report = texts(encoder(SWITCHED), pair("<think>\n\n</think>\n\nLima."))
    assert prompt.endswith("<think>\n\n</think>\n\n")
    assert (chosen, rejected) == ("Lima.<|im_end|>", "Cusco.<|im_end|>")
    assert report.mismatches == {mismatch.RESHAPED: 1}


@pytest.mark.parametrize(("policy", "kept"), [("refuse", 0), ("drop", 0), ("keep", 1)])
@pytest.mark.parametrize(
    ("template", "answer", "kind"),
    [(NEVER_CLOSED, "Lima.", mismatch.OPEN), (tiny.QWEN3, "<think><think>hm</think>Lima.", mismatch.DOUBLED)],
)
def test_open_and_doubled_thinking_are_refused_with_their_place_unless_they_are_to_be_kept(
    template, answer, kind, policy, kept
):
    encoded, report = encoder(template, on_template_mismatch=policy).encode_pairs([pair(answer, answer + "!")])
    assert len(encoded) == kept
    assert report.mismatches == {kind: 1}
    assert ("(first: line 7, pair 0123456789abcdef" in str(report)) is True
    assert sum(report.dropped.values()) == 1 - kept


@pytest.mark.parametrize(("policy", "kept"), [("refuse", 1), ("drop", 0), ("keep", 1)])
def test_trimmed_white_space_is_kept_and_counted_and_only_dropped_on_request(policy, kept):
    encoded, report = encoder(tiny.LLAMA3, on_template_mismatch=policy).encode_pairs([pair("Lima.\n")])
    assert len(encoded) == kept
    assert report.mismatches == {mismatch.SPACE: 1}


@pytest.mark.parametrize("policy", ["as_text", "as_tokens"])
@pytest.mark.parametrize(
    "framed",
    [
        {"chosen": "<|im_start|>assistant\nLima."},
        {"prompt": ({"role": "user", "content": "<|im_start|>user\nWhere?<|im_end|>\n"},)},
    ],
    ids=["answer", "prompt"],
)
def test_a_template_inside_a_template_is_refused(framed, policy):
    _, report = encoder(tiny.CHATML, special_tokens_in_text=policy).encode_pairs([pair(**framed)])
    assert report.mismatches == {mismatch.FRAME: 1}
    assert sum(report.dropped.values()) == 1
    assert "<|im_start|>" in report.examples[mismatch.FRAME]


def test_end_marks_of_earlier_answers_are_written_once_and_counted():
    history = (USER, {"role": "assistant", "content": "Hi!<|im_end|>\n"}, USER)
    (prompt, _, _), report = texts(encoder(tiny.CHATML), pair(prompt=history))
    assert "Hi!<|im_end|>\n<|im_start|>user" in prompt
    assert report.mismatches == {mismatch.EARLIER_MARKS: 1}
    assert report.dropped == {}


@pytest.mark.parametrize(
    ("turn", "kind"),
    [
        ({"content": "Hi!<|im_end|>"}, mismatch.EARLIER_MARKS),
        ({"content": "Hi!", "reasoning_content": "A greeting."}, mismatch.EARLIER_REASONING),
    ],
    ids=["end marks", "reasoning"],
)
def test_drop_leaves_out_every_pair_that_differs_also_where_only_its_history_does(turn, kind):
    """The setting says "drop every pair that differs": that is a promise."""
    history = (USER, {"role": "assistant", **turn}, USER)
    some = [pair(prompt=history), replace(pair(), pair_id="1" * 16)]
    for policy, kept in (("refuse", 2), ("drop", 1), ("keep", 2)):
        encoded, report = encoder(tiny.CHATML, on_template_mismatch=policy).encode_pairs(some)
        assert (len(encoded), report.mismatches[kind]) == (kept, 1)
        assert report.dropped == ({mismatch.KINDS[kind].words: 1} if policy == "drop" else {})


@pytest.mark.parametrize(
    ("whole", "prompt", "answer", "kind"),
    [
        ([1, 2, 3, 4], [1, 2], [3, 4], None),
        ([1, 9, 4], [1, 2], [3, 4], mismatch.MERGED),
        ([1, 2, 9], [1, 2], [3, 4], mismatch.MERGED),
        ([9, 2, 3, 4], [1, 2], [3, 4], mismatch.IDS),
        ([1, 2, 3, 9], [1, 2], [3, 4], mismatch.IDS),
        ([1, 2, 3], [1, 2], [3, 4], mismatch.IDS),
        ([9, 2, 3, 4, 9], [1, 2], [3, 4, 5], mismatch.IDS),
    ],
)
def test_ids_that_differ_at_the_border_are_merged_and_others_are_a_fault(whole, prompt, answer, kind):
    assert mismatch.ids_fault(whole, prompt, answer) == kind


@pytest.mark.parametrize(
    ("lead", "answer", "fault"),
    [
        ("", "<think>x</think>\nLima.", None),
        ("<think>\n", "x\n</think>\n\nLima.", None),
        ("", "<think>x</think>\n</think>\nLima.", mismatch.DOUBLED),
        ("", "<think>x</think></think>Lima.", mismatch.DOUBLED),
        ("<think>\n\n</think>\n\n", "Hm.\n</think>\n\nLima.", mismatch.DOUBLED),
        ("<think>\n", "<think>\nx\n</think>\nLima.", mismatch.DOUBLED),
        ("<think>\n\n</think>\n\n", "<think>\nx\n</think>\nLima.", mismatch.DOUBLED),
        ("", "<think>\nLet me see", mismatch.OPEN),
        ("<think>\n", "Lima.", mismatch.OPEN),
        ("", "Close the block with </think> always.", None),
        ("", "The tag <think> opens it.", None),
        ("", "Write <think>x</think> first, then </think> again.", None),
    ],
)
def test_thinking_is_opened_and_closed_once_and_words_about_tags_are_words(lead, answer, fault):
    assert mismatch.thinking_fault(lead, answer, mismatch.THINKING[0]) == fault


@pytest.mark.parametrize("answer", ["<think>\n<think>\nx", "<think>\nLet me see", "Hm.\n</think>\n\nLima."])
@pytest.mark.parametrize("template", [tiny.CHATML, tiny.QWEN3])
def test_bad_thinking_is_refused_also_where_the_template_knows_none(template, answer):
    encoded, report = encoder(template).encode_pairs([pair(answer)])
    if template == tiny.QWEN3 and answer.startswith("Hm."):
        assert report.mismatches
        return
    assert encoded == []
    assert report.mismatches.keys() & {mismatch.DOUBLED, mismatch.OPEN}


def test_a_sentence_about_a_closing_tag_is_no_thinking():
    """It got "<think>" in front."""
    (_, chosen, _), report = texts(encoder(R1_LIKE), pair("Close the block with </think> always."))
    assert chosen == "Close the block with </think> always.<|im_end|>"
    assert (report.thinking, report.mismatches) == (0, {})


def test_merged_tokens_are_counted_and_no_fault_under_any_policy():
    # " the" is one token of the tiny tokenizer, the space alone is another
    joined = tiny.CHATML.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant: '").replace(
        "m['role'] + '\n'", "m['role'] + (': ' if m['role'] == 'assistant' else '\n')"
    )
    encoded, report = encoder(joined, on_template_mismatch="drop").encode_pairs([pair("the capital", "Paris")])
    assert report.mismatches == {mismatch.MERGED: 1}
    assert len(encoded) == 1


def test_the_first_pairs_and_every_unusual_one_are_compared_token_by_token(monkeypatch):
    from simpo_workbench.engine.encode import tokens

    monkeypatch.setattr(tokens, "COMPARED_PAIRS", 3)
    some = [pair(f"Lima {number}.") for number in range(5)] + [pair("Lima. ")]
    assert encoder(tiny.LLAMA3).encode_pairs(some)[1].compared == 4
    tool = {"type": "function", "function": {"name": "find", "parameters": {}}}
    with_tools = [replace(one, tools=(tool,)) for one in some[:5]]
    assert encoder(tiny.LLAMA3).encode_pairs(with_tools)[1].compared == 5


def test_an_answer_ends_with_the_token_that_opens_the_next_turn_where_the_model_ends_with_it():
    opener = tiny.tokenizer().convert_tokens_to_ids("<|start|>")
    assert encoder(UNENDED, TemplateValues(end_ids=frozenset({2, opener}))).end_of_turn_id == opener
    assert encoder(UNENDED).end_of_turn_id == encoder(UNENDED).tokenizer.eos_token_id
    (_, chosen, _), report = texts(encoder(UNENDED, TemplateValues(end_ids=frozenset({opener}))), pair())
    assert chosen == "\nLima.<|start|>"
    assert report.mismatches == {}


def test_the_day_of_a_template_is_that_of_the_run_for_every_rendering():
    dated = "\n  {% if true %}{{ 'On ' + strftime_now('%d %b %Y') }}{% endif %}\n" + tiny.CHATML
    coder = encoder(dated, TemplateValues(datetime(2024, 2, 29)))
    (prompt, _, _), report = texts(coder, pair())
    assert prompt.startswith("\nOn 29 Feb 2024<|im_start|>user")
    assert report.mismatches == {}
    assert coder.template.to_keep() == {"template_time": "2024-02-29T00:00:00", "thinking": False}
    assert encoder(tiny.CHATML).template.to_keep()["template_time"] is None
    today = encoder(dated).template
    assert today.prompt_text([USER]) == today.prompt_text([USER])
    assert encoder(dated, TemplateValues(datetime(2024, 3, 1))).prompt_ids([USER]) != coder.prompt_ids([USER])


@pytest.mark.parametrize("template", ["chatml", "llama3", "gemma"])
def test_an_empty_system_turn_is_no_system_turn(template):
    blank = {"role": "system", "content": " \n"}
    coder = ChatEncoder(tiny.tokenizer(template))
    assert coder.prompt_ids([blank, USER]) == coder.prompt_ids([USER])
    assert texts(coder, pair(prompt=(blank, USER)))[0] == texts(coder, pair())[0]
    assert coder.encode_pairs([pair(prompt=(blank, USER))])[1].notes == []
    configured = ChatEncoder(tiny.tokenizer(template), DataConfig(system_prompt="Be brief."))
    assert configured.prompt_ids([blank, USER]) == configured.prompt_ids([USER])


def test_what_dropped_pairs_say_of_thinking_is_not_counted():
    """Sampled answers would think although no trained answer does."""
    thinking = "<think>\n" + "Let me see. " * 60 + "\n</think>\n\nLima."
    coder = encoder(R1_LIKE, max_tokens=60)
    some = [pair(), *(pair(thinking, f"<think>x</think>No {number}.") for number in range(3))]
    encoded, report = coder.encode_pairs(some)
    assert (len(encoded), sum(report.dropped.values()), report.thinking) == (1, 3, 0)
    assert coder.template.values.thinking is False


R1_LIKE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
)
