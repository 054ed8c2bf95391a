"""Templates as families of models write them, over conversations of all kinds.

What a user would lose: training on a text that the template never writes, with no note. `tests/full/engine` asks the
same of every template that TRL ships.
"""

import facts
import pytest
import rendered_by_template as rendered
from facts import FACTS, assistant, system, user

import simpo_workbench as wb
from simpo_workbench.config.run_config import ModelConfig

_CHATML = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
_HEAD = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' BEGIN }}{% endif %}"


def chatml(assistant_turn, begin, first="", last="{% endfor %}"):
    """ChatML whose assistant turns and whose beginning of an answer are given."""
    turn = "{% if m.role == 'assistant' %}" + assistant_turn + "{% else %}" + _CHATML + "{% endif %}"
    return first + "{% for m in messages %}" + turn + last + _HEAD.replace("BEGIN", begin)


_OWN_OR_EMPTY = (
    "{% set parts = m.content.split('</think>') %}{{ '<|im_start|>assistant\n<think>\n' + (parts[0].replace('<think>',"
    " '') | trim if parts | length > 1 else '') + '\n</think>\n\n' + parts[-1] | trim + '<|im_end|>\n' }}"
)
TEMPLATES = {
    # both blocks the same: Qwen 3.5 without thinking
    "an empty block is written for all": chatml(_OWN_OR_EMPTY, "+ '<think>\n\n</think>\n\n'"),
    # the switch is a template option, the block of plain answers has a line break less: Qwen 3.5, Qwen 3.6
    "thinking is opened unless switched off": chatml(
        _OWN_OR_EMPTY,
        "+ ('<think>\n\n</think>\n\n' if enable_thinking is defined and not enable_thinking else '<think>\n')",
    ),
    # Nemotron 3
    "an empty block without line breaks": chatml(
        "{{ '<|im_start|>assistant\n' + ('' if '<think>' in m.content else '<think></think>') + m.content +"
        " '<|im_end|>\n' }}",
        "+ ('<think></think>' if enable_thinking is defined and not enable_thinking else '<think>\n')",
    ),
    # DeepSeek
    "reasoning is left out of answers": (
        "<s>{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|end|>' + m.content.split('</think>')[-1] +"
        " '<|eot|>' }}{% elif m.role == 'user' %}{{ '<|start|>' + m.content }}{% else %}{{ m.content }}{% endif %}{%"
        " endfor %}{% if add_generation_prompt %}{{ '<|end|><think>\n' }}{% endif %}"
    ),
    # Mistral: the system text stands in the last user turn, and nothing opens an answer
    "the system text in the last user turn": (
        "{% set first = messages[0] %}{% set talk = messages[1:] if first.role == 'system' else messages %}<s>{% for m"
        " in talk %}{% if m.role == 'user' %}{{ '<|start|>' }}{% if first.role == 'system' and m ==="
        " (talk | selectattr('role', 'equalto', 'user') | list | last) %}{{ first.content + '\n\n' }}{% endif %}{{"
        " m.content + '<|end|>' }}{% else %}{{ m.content + '</s>' }}{% endif %}{% endfor %}"
    ).replace("===", "=="),
    # Gemma
    "roles of its own, trimmed texts": (
        "<s>{% for m in messages %}{{ '<|start|>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content |"
        " trim + '<|eot|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>model\n' }}{% endif %}"
    ),
}


def plain(question, good, poor):
    return {"prompt": question, "chosen": good, "rejected": poor}


ALL = pytest.mark.parametrize("template", list(TEMPLATES.values()), ids=list(TEMPLATES))


@ALL
def test_what_is_scored_is_what_the_template_writes_or_the_report_says_why_not(template):
    encoder = rendered.encoder_for(rendered.tokenizer_for(template))
    outcomes = {name: rendered.outcome(encoder, rendered.pair_of(row)) for name, row in rendered.CONVERSATIONS.items()}
    assert not {name: said for name, said in outcomes.items() if said.startswith("WRONG")}
    for name in ("plain", "several turns", "system turn", "system turn, several turns", "empty system turn"):
        assert outcomes[name] == "equal", name


@ALL
def test_an_end_mark_in_the_data_is_scored_once(template, tmp_path):
    coder = facts.encoder(template, rendered.marks_of(template))
    mark = coder.tokenizer.decode([coder.end_of_turn_id])
    marked = [(question, good + mark, poor + mark) for question, good, poor in FACTS]
    path, with_marks = facts.jsonl(tmp_path / "a.jsonl", plain), facts.jsonl(tmp_path / "b.jsonl", plain, marked)
    expected, _ = facts.encoded(coder, facts.read(path)[2])
    texts, report = facts.encoded(coder, facts.read(with_marks)[2])
    assert texts == expected
    assert all(answer.count(mark) == 1 for text in texts for answer in text[1:])
    assert "end marks" in str(report)


#: GLM writes nothing behind an answer: the model ends its turn with what opens the next one.
UNENDED = (
    "<s>{% for m in messages %}{{ {'user': '<|start|>', 'assistant': '<|end|>', 'system': '<|eot|>'}[m.role] + '\n' +"
    " m.content | trim }}{% endfor %}{% if add_generation_prompt %}<|end|>{% endif %}"
)


def test_a_turn_without_an_end_is_ended_by_what_opens_the_next_one(tmp_path, tiny_model):
    with wb.load_model(ModelConfig(name=tiny_model, load_in="fp32")) as loaded:
        loaded.tokenizer.chat_template = UNENDED
        opener = loaded.tokenizer.convert_tokens_to_ids("<|start|>")
        loaded.model.generation_config.eos_token_id = [loaded.tokenizer.eos_token_id, opener]
        coder = facts.ChatEncoder.of(loaded)
        path = facts.jsonl(tmp_path / "a.jsonl", plain)
        texts, report = facts.encoded(coder, facts.read(path)[2])
        talk = [user(FACTS[0][0]), assistant(FACTS[0][1]), user("And?")]
        whole = loaded.tokenizer.apply_chat_template(talk, tokenize=False)
    assert whole.startswith(texts[0][0] + texts[0][1])
    assert texts[0][1] == f"\n{FACTS[0][1]}<|start|>"
    assert sum(report.dropped.values()) == 0


@pytest.mark.parametrize("of", ["", "{% if part.type == 'text' %}"], ids=["all parts", "parts of the type text"])
def test_a_template_that_takes_contents_in_parts_is_refused_in_words(of):
    parts = "{% for part in m.content %}" + of + "{{ part.text }}" + ("{% endif %}" if of else "") + "{% endfor %}"
    template = "{% for m in messages %}{{ m.role + ': ' }}" + parts + "{{ '<|im_end|>' }}{% endfor %}"
    with pytest.raises(wb.WorkbenchError, match="drops the assistant's answer, so nothing could be scored"):
        facts.encoder(template)


def test_the_system_text_of_the_last_user_turn_is_there_in_sampling_too():
    coder = facts.encoder(TEMPLATES["the system text in the last user turn"])
    prompt = coder.tokenizer.decode(coder.prompt_ids([system("Rhyme."), user("Hi"), assistant("Hey"), user("Why?")]))
    assert prompt == "<s><|start|>Hi<|end|>Hey</s><|start|>Rhyme.\n\nWhy?<|end|>"
