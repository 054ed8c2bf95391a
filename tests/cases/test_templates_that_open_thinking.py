"""Templates that begin an answer with a thinking block, and answers with reasoning, without it, or in the middle of it.

What a user would lose: a model trained on a second <think> behind an open one, or on plain answers inside an open
block, which it never meets in use; both without a word.
"""

import facts
import pytest
from facts import FACTS, assistant, user

THOUGHT, DOUBT = "<think>\nI know that one.\n</think>\n\n", "<think>\nHard to say.\n</think>\n\n"
#: Opens a block in the generation prompt, and leaves the reasoning out of answers.
DROPS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<|start|>' + m.content }}{% elif m.role =="
    " 'system' %}{{ m.content }}{% else %}{{ '<|end|>' + m.content.split('</think>')[-1] + '<|eot|>' }}{% endif %}{%"
    " endfor %}{% if add_generation_prompt %}{{ '<|end|><think>\n' }}{% endif %}"
)
_FRAMED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' and '<think>' not in"
    " m.content %}{{ EMPTY }}{% endif %}{{ m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{"
    " '<|im_start|>assistant\n' + BEGIN }}{% endif %}"
)
#: Opens a block in the generation prompt, and writes an empty one in front of plain answers.
OPENS = _FRAMED.replace("EMPTY", "'<think></think>'").replace("BEGIN", "'<think>\n'")
#: Writes an empty block in the generation prompt and in front of plain answers.
SHUTS = _FRAMED.replace("EMPTY", "'<think>\n\n</think>\n\n'").replace("BEGIN", "'<think>\n\n</think>\n\n'")
HEAD = {DROPS: "<|end|>", OPENS: "<|im_start|>assistant\n", SHUTS: "<|im_start|>assistant\n"}
END = {DROPS: "<|eot|>", OPENS: "<|im_end|>", SHUTS: "<|im_end|>"}
NAMES = {DROPS: "drops reasoning", OPENS: "opens a block", SHUTS: "shuts a block"}
ROWS = {
    "only chosen": lambda q, good, poor: {"prompt": q, "chosen": THOUGHT + good, "rejected": poor},
    "nobody": lambda q, good, poor: {"prompt": q, "chosen": good, "rejected": poor},
    "both": lambda q, good, poor: {"prompt": q, "chosen": THOUGHT + good, "rejected": DOUBT + poor},
    "goes on": lambda q, good, poor: {
        "prompt": q,
        "chosen": THOUGHT.removeprefix("<think>\n") + good,
        "rejected": DOUBT.removeprefix("<think>\n") + poor,
    },
}


def encoded(template, who, tmp_path, **data):
    """(the texts behind the user's question of the first pair, all texts, report)."""
    pairs = facts.read(facts.jsonl(tmp_path / "a.jsonl", ROWS[who]))[2]
    texts, report = facts.encoded(facts.encoder(template, eos=END[template], **data), pairs)
    first = [
        text
        for text in texts[:1]
        for text in (text[0].rpartition(FACTS[0][0])[2].removeprefix("<|im_end|>\n"), *text[1:])
    ]
    return first, texts, report


ALL = pytest.mark.parametrize("template", list(NAMES), ids=list(NAMES.values()))


@ALL
@pytest.mark.parametrize("who", list(ROWS))
def test_whatever_is_scored_opens_thinking_once_and_never_leaves_it_open(template, who, tmp_path):
    _, texts, report = encoded(template, who, tmp_path)
    assert (len(texts), sum(report.dropped.values())) in ((4, 0), (0, 4))
    for prompt, *answers in texts:
        for answer in answers:
            whole = prompt + answer
            assert whole.count("<think>") == whole.count("</think>") <= 1
            assert answer.count(END[template]) == 1


@ALL
def test_plain_answers_begin_behind_a_closed_block_or_in_front_of_any(template, tmp_path):
    first, texts, report = encoded(template, "nobody", tmp_path)
    block = {DROPS: "", OPENS: "<think></think>", SHUTS: "<think>\n\n</think>\n\n"}[template]
    good, poor = FACTS[0][1:]
    assert first == [HEAD[template] + block, good + END[template], poor + END[template]]
    assert ("The chat template opens thinking" in str(report)) == (template != SHUTS)
    # it is what the template itself writes of the conversation
    tokenizer = facts.encoder(template).tokenizer
    conversation = [user(FACTS[0][0]), assistant(good)]
    assert tokenizer.apply_chat_template(conversation, tokenize=False).startswith(texts[0][0] + texts[0][1])


@ALL
def test_where_both_think_the_block_is_opened_once(template, tmp_path):
    first, _, report = encoded(template, "both", tmp_path)
    good, poor = FACTS[0][1:]
    opened = {DROPS: "<think>\n", OPENS: "<think>\n", SHUTS: ""}[template]
    assert first[0] == HEAD[template] + opened
    assert first[1] == THOUGHT.removeprefix(opened) + good + END[template]
    assert first[2] == DOUBT.removeprefix(opened) + poor + END[template]
    assert ("would drop an answer's reasoning: it is scored as in the data" in str(report)) == (template == DROPS)


@ALL
def test_where_one_thinks_the_prompt_ends_in_front_of_the_block_and_nothing_is_lost(template, tmp_path):
    first, _, report = encoded(template, "only chosen", tmp_path)
    good, poor = FACTS[0][1:]
    empty = {DROPS: "", OPENS: "<think></think>", SHUTS: "<think>\n\n</think>\n\n"}[template]
    assert first == [HEAD[template], THOUGHT + good + END[template], empty + poor + END[template]]
    said = "would drop an answer's reasoning" if template == DROPS else "writes an answer differently from the data"
    assert f"In 4 pairs the chat template {said}" in str(report)


@pytest.mark.parametrize("template", [DROPS, OPENS], ids=["drops reasoning", "opens a block"])
def test_answers_that_go_on_from_the_opened_block(template, tmp_path):
    first, _, report = encoded(template, "goes on", tmp_path)
    good, poor = FACTS[0][1:]
    assert first[0] == f"{HEAD[template]}<think>\n"
    assert first[1] == f"I know that one.\n</think>\n\n{good}{END[template]}"
    assert first[2] == f"Hard to say.\n</think>\n\n{poor}{END[template]}"
    assert str(report) != "4 pairs encoded."


def test_answers_that_go_on_from_a_block_that_the_template_has_shut_are_refused_rows(tmp_path):
    _, texts, report = encoded(SHUTS, "goes on", tmp_path)
    assert texts == []
    assert "Dropped 4: thinking is opened twice, or closed where none is open (first: line 1" in str(report)
