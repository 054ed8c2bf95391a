"""What a user would lose: a model trained to score its prompt, to forget its end of turn, or to begin twice."""

from collections import Counter

import pytest
import tiny
from transformers import PreTrainedTokenizerFast

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.config.run_config import DataConfig
from simpo_workbench.engine.encode import tokens
from simpo_workbench.engine.encode.tokens import ChatEncoder, EncodingReport
from simpo_workbench.pairs.pairs import load_pairs

QUESTION = "What is the capital of France?"
USER = [{"role": "user", "content": QUESTION}]


def chat_encoder(template="chatml", add_bos=False, **data):
    return ChatEncoder(tiny.tokenizer(template, add_bos), DataConfig(**data))


def text(encoder, ids):
    return encoder.tokenizer.decode(ids)


def pairs(*rows):
    return list(
        load_pairs([{"prompt": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in rows])
    )


@pytest.mark.parametrize(
    ("template", "prompt", "end"),
    [
        ("chatml", "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"),
        (
            "llama3",
            "<s><|start|>user<|end|>\n\nWhat is the capital of France?<|eot|><|start|>assistant<|end|>\n\n",
            "<|eot|>",
        ),
        ("gemma", "<s><|start|>user\nWhat is the capital of France?<|eot|>\n<|start|>model\n", "<|eot|>"),
    ],
)
@pytest.mark.parametrize("add_bos", [False, True])
def test_prompt_ends_with_the_header_and_the_answer_with_one_end_of_turn(template, prompt, end, add_bos):
    """Also where the tokenizer adds a beginning-of-text token by itself: it must come once, from the template, and
    never before an answer.
    """
    encoder = chat_encoder(template, add_bos)
    (pair,), _ = encoder.encode_pairs(pairs((QUESTION, "Paris.", "Lyon.")))
    assert pair.prompt_ids == encoder.prompt_ids(USER)
    assert text(encoder, pair.prompt_ids) == prompt
    assert text(encoder, pair.chosen_ids) == "Paris." + end
    assert text(encoder, pair.rejected_ids) == "Lyon." + end
    assert pair.chosen_ids.count(encoder.end_of_turn_id) == 1
    assert pair.prompt_ids.count(encoder.tokenizer.bos_token_id) == prompt.count("<s>")


def test_prompt_and_answer_together_are_what_the_template_renders():
    encoder = chat_encoder()
    whole = encoder.tokenizer.apply_chat_template([*USER, {"role": "assistant", "content": "Paris."}], tokenize=False)
    (pair,), _ = encoder.encode_pairs(pairs((QUESTION, "Paris.", "Lyon.")))
    assert text(encoder, pair.prompt_ids + pair.chosen_ids) == whole.rstrip("\n")


def test_an_empty_thinking_block_belongs_to_the_prompt():
    encoder = chat_encoder("qwen3", template_options={"enable_thinking": False})
    (pair,), _ = encoder.encode_pairs(pairs((QUESTION, "Paris.", "Lyon.")))
    assert pair.prompt_ids == encoder.prompt_ids(USER)
    assert text(encoder, pair.prompt_ids).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert text(encoder, pair.chosen_ids) == "Paris.<|im_end|>"
    assert "<think>" not in text(chat_encoder("qwen3"), chat_encoder("qwen3").prompt_ids(USER))


def test_system_text_leads_the_first_user_turn_where_the_template_has_no_system_turn():
    encoder = chat_encoder("gemma", system_prompt="Be brief.")
    assert (
        text(encoder, encoder.prompt_ids(USER))
        == "<s><|start|>user\nBe brief.\n\nWhat is the capital of France?<|eot|>\n<|start|>model\n"
    )
    _, report = encoder.encode_pairs(pairs(("a", "b", "c")))
    assert any("no system turn" in note for note in report.notes)
    encoder = chat_encoder(system_prompt="Be brief.")
    assert text(encoder, encoder.prompt_ids(USER)).startswith("<|im_start|>system\nBe brief.<|im_end|>")


def test_a_pairs_own_system_turn_wins_over_the_configured_one():
    encoder = chat_encoder(system_prompt="Be brief.")
    assert "Be brief." not in text(encoder, encoder.prompt_ids([{"role": "system", "content": "Be long."}, *USER]))


def test_long_pairs_are_dropped_and_counted_by_default():
    encoded, report = chat_encoder(max_tokens=40).encode_pairs(
        pairs(("short", "yes", "no"), ("long " * 40, "yes", "no"))
    )
    assert [len(pair.prompt_ids) < 40 for pair in encoded] == [True]
    assert report.dropped == {"longer than data.max_tokens 40": 1}
    assert "Dropped 1" in str(report)


def test_a_cut_prompt_keeps_system_turn_end_and_header_and_no_answer_is_touched():
    encoder = chat_encoder(max_tokens=60, overlong="keep_end", system_prompt="Be brief.")
    (pair,), report = encoder.encode_pairs(pairs(("first " * 40 + "the very last words", "yes", "no indeed")))
    prompt = text(encoder, pair.prompt_ids)
    assert prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert prompt.endswith("the very last words<|im_end|>\n<|im_start|>assistant\n")
    assert len(pair.prompt_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids)) == 60
    assert text(encoder, pair.rejected_ids) == "no indeed<|im_end|>"
    assert (pair.truncated, report.truncated) == (True, 1)


def test_an_answer_that_alone_is_too_long_is_dropped_whole_even_when_prompts_may_be_cut():
    encoded, report = chat_encoder(max_tokens=30, overlong="keep_end").encode_pairs(
        pairs(("short", "word " * 60, "no"))
    )
    assert encoded == []
    assert sum(report.dropped.values()) == 1
    assert "alone are longer" in next(iter(report.dropped))


def test_what_the_template_trims_is_not_scored_and_said():
    (pair,), report = chat_encoder("llama3").encode_pairs(pairs(("What?", "  Paris.\n", "Lyon.")))
    assert text(chat_encoder("llama3"), pair.chosen_ids) == "Paris.<|eot|>"
    assert report.rewritten == 1
    assert report.mismatches == {"white space": 1}
    assert "In 1 pair white space around an answer is left out" in str(report)
    assert "row 1, pair" in str(report)


def test_an_end_mark_in_the_data_is_not_scored_twice():
    (pair,), _ = chat_encoder().encode_pairs(pairs(("What?", "Paris.<|im_end|>", "Lyon.")))
    assert text(chat_encoder(), pair.chosen_ids) == "Paris.<|im_end|>"


def test_a_thinking_block_that_the_template_puts_before_every_answer_belongs_to_the_prompt():
    """As Qwen3 does for the last turn: the model never had to produce it, so it must not be scored, nor be missing when
    answers are sampled.
    """
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = tiny.CHATML.replace(
        "m['content'] +", "('<think>\n\n</think>\n\n' if m['role'] == 'assistant' else '') + m['content'] +"
    )
    encoder = ChatEncoder(tokenizer)
    (pair,), report = encoder.encode_pairs(pairs(("What?", "Paris.", "Lyon.")))
    assert text(encoder, pair.prompt_ids).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert text(encoder, encoder.prompt_ids(USER)).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert (text(encoder, pair.chosen_ids), report.rewritten) == ("Paris.<|im_end|>", 0)


def test_an_answer_that_brings_its_own_thinking_is_scored_as_rendered_behind_the_bare_prompt():
    tokenizer = tiny.tokenizer()
    block = (
        "{% if m['role'] == 'assistant' and '<think>' not in m['content'] %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    )
    tokenizer.chat_template = tiny.CHATML.replace(
        "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}",
        "{{ '<|im_start|>' + m['role'] + '\n' }}" + block + "{{ m['content'] + '<|im_end|>\n' }}",
    )
    encoder = ChatEncoder(tokenizer)
    (pair,), _ = encoder.encode_pairs(pairs(("What?", "<think>\nhm\n</think>\n\nParis.", "Lyon.")))
    assert text(encoder, pair.prompt_ids).endswith("<|im_start|>assistant\n")
    assert text(encoder, pair.chosen_ids) == "<think>\nhm\n</think>\n\nParis.<|im_end|>"
    assert text(encoder, pair.rejected_ids) == "<think>\n\n</think>\n\nLyon.<|im_end|>"


@pytest.mark.parametrize("metaspace", [True, False])
def test_a_space_before_answers_is_part_of_the_answer_as_the_model_would_write_it(metaspace):
    """Llama 2 and Mistral render "[/INST] Paris": the space melts into the first token and must not be left dangling at
    the prompt's end.
    """
    tokenizer = tiny.tokenizer(metaspace=metaspace)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '[INST] ' + m['content'] + ' [/INST]' if m['role'] == 'user' else ' ' + m['content']"
        " + ' </s>' }}{% endfor %}"
    )
    encoder = ChatEncoder(tokenizer)
    (pair,), report = encoder.encode_pairs(pairs(("What?", "Paris.", "Lyon.")))
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "Paris."}], tokenize=False
    )
    rendered = tokenizer(whole.removesuffix(" </s>"), add_special_tokens=False)["input_ids"]
    assert pair.prompt_ids + pair.chosen_ids[:-1] == rendered
    assert pair.chosen_ids[-1] == tokenizer.convert_tokens_to_ids("</s>")
    assert report.rewritten == 0


def test_an_end_mark_in_the_middle_of_an_answer_is_refused_where_it_may_act_as_one():
    encoded, report = chat_encoder(special_tokens_in_text="as_tokens").encode_pairs(
        pairs(("What?", "Paris.<|im_end|>\nAnd more.", "Lyon."))
    )
    assert encoded == []
    assert report.dropped == {"an answer holds the end-of-turn token in its middle": 1}


def test_cutting_a_conversation_takes_whole_turns_first():
    encoder = chat_encoder(max_tokens=90, overlong="keep_end", system_prompt="Be brief.")
    turns = [
        {"role": "user", "content": "first " * 20},
        {"role": "assistant", "content": "second " * 20},
        {"role": "user", "content": "What is last?"},
    ]
    rows = [{"prompt": turns, "chosen": "yes", "rejected": "no indeed"}]
    (pair,), _ = encoder.encode_pairs(list(load_pairs(rows)))
    assert (
        text(encoder, pair.prompt_ids)
        == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is last?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_header_that_the_template_forgets_in_the_generation_prompt_is_not_scored():
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = tiny.CHATML.partition("{% if add_generation_prompt")[0]
    encoder = ChatEncoder(tokenizer)
    (pair,), _ = encoder.encode_pairs(pairs(("What?", "Paris.", "Lyon.")))
    assert text(encoder, pair.prompt_ids).endswith("<|im_start|>assistant\n")
    assert text(encoder, pair.chosen_ids) == "Paris.<|im_end|>"


def test_a_model_without_template_is_refused_with_what_to_do():
    bare = tiny.tokenizer()
    bare.chat_template = None
    with pytest.raises(WorkbenchError, match=r"no chat template.*data\.chat_template"):
        ChatEncoder(bare)


def test_a_template_that_breaks_is_named():
    broken = tiny.tokenizer()
    broken.chat_template = "{{ raise_exception('only two turns') }}"
    with pytest.raises(WorkbenchError, match="chat template refused.*only two turns"):
        ChatEncoder(broken)


def test_a_template_that_drops_the_answer_is_refused():
    silent = tiny.tokenizer()
    silent.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"
    )
    with pytest.raises(WorkbenchError, match="drops the assistant's answer"):
        ChatEncoder(silent)


# --- many pairs at once


def mixed_pairs():
    """Pairs of all fates: white space, end marks, thinking, system turns, conversations, neighbors with one prompt, too
    long, alike once encoded.
    """
    turns = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "second"},
        {"role": "user", "content": "third \n"},
    ]
    rows = [
        *tiny.rows(7),
        {"prompt": "Same?", "chosen": "yes", "rejected": "no"},
        {"prompt": "Same?", "chosen": "yes", "rejected": "never"},
        {"prompt": [{"role": "system", "content": "Be long."}, *USER], "chosen": "Paris.", "rejected": "Lyon."},
        {"prompt": turns, "chosen": "  yes\n", "rejected": "no"},
        {"prompt": "mark", "chosen": "yes<|im_end|>", "rejected": "no</s>"},
        {"prompt": "middle", "chosen": "yes<|im_end|>no", "rejected": "no<|eot|>yes"},
        {"prompt": "think", "chosen": "<think>\nhm\n</think>\n\nParis.", "rejected": "Lyon."},
        {"prompt": "long " * 60, "chosen": "yes", "rejected": "no"},
        {"prompt": [*turns[:2], {"role": "user", "content": "long " * 60}], "chosen": "yes", "rejected": "no"},
        {"prompt": "short", "chosen": "long " * 60, "rejected": "no"},
        {"prompt": "alike", "chosen": "yes ", "rejected": "yes"},
        {"prompt": "<s>Zürich 東京 🗼 e\u0301\u200d", "chosen": "Zürich", "rejected": "東京 🗼"},
        *tiny.rows(3, start=50),
    ]
    return list(load_pairs(rows))


def one_at_a_time(encoder, pairs):
    """Oracle: every pair encoded by itself, each text by a call of the tokenizer for it alone, the reports added up."""
    encoder._ids_of_all = lambda texts: [encoder._ids_or_none(text) for text in texts]
    encoded, total = [], EncodingReport()
    for pair in pairs:
        encoded_alone, report = encoder.encode_pairs([pair])
        encoded += encoded_alone
        counts = ("pairs", "truncated", "rewritten", "unplaced", "compared", "thinking", "mismatches", "control_pairs")
        for name in counts:
            setattr(total, name, getattr(total, name) + getattr(report, name))
        total.examples = report.examples | total.examples
        total.control_marks = dict(Counter(total.control_marks) + Counter(report.control_marks))
        for reason, pair_id in report.first_dropped.items():
            total.drop(reason, pair_id, pair.where)
    return encoded, total


@pytest.mark.parametrize("kind", ["plain", "bos", "metaspace", "bos and metaspace", "own encoding", "slow"])
@pytest.mark.parametrize("template", [*tiny.TEMPLATES, "llama2"])
@pytest.mark.parametrize("data", [{}, {"overlong": "keep_end", "system_prompt": "Be brief."}], ids=["drop", "keep_end"])
def test_many_pairs_at_once_are_what_each_is_alone(kind, template, data, monkeypatch):
    def build():
        tokenizer = (
            tiny.slow_tokenizer() if kind == "slow" else tiny.tokenizer("chatml", "bos" in kind, "metaspace" in kind)
        )
        llama2 = (
            "{% for m in messages %}{{ '[INST] ' + m['content'] + ' [/INST]' if m['role'] == 'user' else ' ' +"
            " m['content'] + ' </s>' }}{% endfor %}"
        )
        tokenizer.chat_template = tiny.TEMPLATES.get(template, llama2)
        if kind == "slow":  # the ends of turns of all these templates
            tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>", "<|eot|>", "</s>"]})
        if kind == "own encoding":
            tokenizer.__class__ = Doubling
        return ChatEncoder(tokenizer, DataConfig(max_tokens=400 if kind == "slow" else 120, **data))

    monkeypatch.setattr(tokens, "_CHUNK_PAIRS", 4)
    pairs = mixed_pairs()
    encoded, report = build().encode_pairs(pairs)
    alone, alone_report = one_at_a_time(build(), pairs)
    assert encoded == alone
    report.notes = []
    assert report == alone_report
    assert encoded
    assert report.dropped


class Doubling(PreTrainedTokenizerFast):
    """A fast tokenizer whose class does something of its own around the Rust side."""

    def _encode_plus(self, text, *args, **kwargs):
        twice = [part + part for part in text] if isinstance(text, list) else text + text
        return super()._encode_plus(twice, *args, **kwargs)


def test_notes_count_over_all_chunks(monkeypatch):
    monkeypatch.setattr(tokens, "_CHUNK_PAIRS", 2)
    some = pairs(*((f"What {number}?", " Paris.", "Lyon.") for number in range(5)))
    _, report = chat_encoder("gemma", system_prompt="Be brief.").encode_pairs(some)
    assert report.rewritten == 5
    assert [note.split(":")[0] for note in report.notes] == [
        "The chat template has no system turn",
        "In 5 pairs white space around an answer is left out, as the chat template writes it (first",
    ]


def test_chunks_are_cut_by_pairs_and_by_text(monkeypatch):
    """Pairs of 30,000 tokens must not be held by the thousand."""
    monkeypatch.setattr(tokens, "_CHUNK_PAIRS", 3)
    monkeypatch.setattr(tokens, "_CHUNK_CHARACTERS", 50)
    some = pairs(*((f"{number}", "a", "b") for number in range(4)), ("long " * 20, "a", "b"), ("5", "a", "b"))
    assert [len(chunk) for chunk in tokens._chunks(some)] == [3, 2, 1]


def test_one_conversation_that_a_template_refuses_is_one_refused_row_with_its_place_and_the_reason():
    encoder = chat_encoder()
    encoder.tokenizer.chat_template = (
        tiny.CHATML + "{% if messages | length == 4 %}{{ raise_exception('too many turns') }}{% endif %}"
    )
    turns = [*USER, {"role": "assistant", "content": "Paris."}, *USER]
    rows = [*tiny.rows(3), {"prompt": turns, "chosen": "a", "rejected": "b"}, *tiny.rows(3, start=20)]
    some = list(load_pairs(rows))
    encoded, report = encoder.encode_pairs(some)
    assert [pair.pair_id for pair in encoded] == [pair.pair_id for pair in some if len(pair.prompt) == 1]
    assert report.dropped == {"the chat template refuses the conversation: too many turns": 1}
    assert f"too many turns (first: row 4, pair {some[3].pair_id})" in str(report)
