"""What a user would lose: answers that are not the model's, or that change because of what else was asked."""

import pytest
import tiny
import torch
from transformers import DynamicCache

import simpo_workbench as wb
from simpo_workbench.config.run_config import DataConfig, GenerationConfig, ModelConfig
from simpo_workbench.engine.encode.tokens import ChatEncoder

PROMPTS = ["What is the capital of France?", "Why?", "Say one, two, three and then four and five.", "Who are you?"]


@pytest.fixture(scope="module")
def loaded(tiny_model):
    with wb.load_model(ModelConfig(name=tiny_model, load_in="fp32")) as model:
        yield model


def test_greedy_answers_are_those_of_plain_transformers_one_by_one(loaded):
    table = wb.generate(loaded, PROMPTS, GenerationConfig(max_new_tokens=12))
    for prompt, answer, tokens in zip(PROMPTS, table["base"], table["base_tokens"], strict=True):
        ids = loaded.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        out = loaded.model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert answer == loaded.tokenizer.decode(out, skip_special_tokens=True).strip()
        assert tokens == len([token for token in out.tolist() if token != loaded.tokenizer.eos_token_id])


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "lfm2"])
def test_answers_that_leave_the_batch_disturb_none_of_the_others(family, tmp_path, monkeypatch):
    """Answers end after 0 to 40 tokens, beside prompts of other lengths and, in mistral and gemma2, sliding windows."""
    from simpo_workbench.engine import generation

    many_ends = list(range(60, 340, 9))
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    prompts = [" ".join(words[: 1 + index % 12]) + f" {index}" for index in range(24)]
    leaving = []
    select = DynamicCache.batch_select_indices
    monkeypatch.setattr(
        DynamicCache, "batch_select_indices", lambda cache, rows: (leaving.append(len(rows)), select(cache, rows))[1]
    )
    monkeypatch.setattr(generation, "_MOST_ROWS", 16)  # two batches
    counts = []
    with wb.load_model(ModelConfig(name=tiny.save(tmp_path / family, family), load_in="fp32")) as model:
        model.model.generation_config.eos_token_id = many_ends
        encoder = ChatEncoder(model.tokenizer, None)
        conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
        answers = generation.answer(
            model,
            encoder,
            conversations,
            GenerationConfig(max_new_tokens=40),
            seed=0,
            progress=lambda done, total: counts.append((done, total)),
        )
        ends = {*many_ends, encoder.end_of_turn_id}
        lengths = set()
        for conversation, answer in zip(conversations, answers, strict=True):
            ids = torch.tensor([encoder.prompt_ids(conversation)])
            plain = model.model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False, eos_token_id=sorted(ends)
            )
            tokens = [token for token in plain[0, ids.shape[1] :].tolist() if token not in ends]
            assert answer.text == model.tokenizer.decode(tokens, skip_special_tokens=True).strip()
            assert (answer.tokens, answer.ended) == (len(tokens), len(tokens) < 40)
            lengths.add(len(tokens))
    assert len(lengths) > 2
    assert [done for done, _ in counts] == list(range(1, 25))
    assert {total for _, total in counts} == {24}
    assert leaving == [] if family == "lfm2" else leaving


def test_a_model_whose_own_settings_count_tokens_from_the_start_is_sampled_in_one_piece(loaded, monkeypatch):
    """In parts the least length would be demanded of each part."""
    monkeypatch.setattr(loaded.model.generation_config, "min_new_tokens", 5)
    generate, lengths = loaded.model.generate, []

    def counted(**options):
        lengths.append(options["generation_config"].max_new_tokens)
        return generate(**options)

    monkeypatch.setattr(loaded.model, "generate", counted)
    wb.generate(loaded, PROMPTS, GenerationConfig(max_new_tokens=12))
    assert lengths == [12]


def test_a_batch_that_does_not_fit_into_memory_is_divided(loaded, monkeypatch):
    plain = wb.generate(loaded, PROMPTS, GenerationConfig(max_new_tokens=12))
    generate, rows = loaded.model.generate, []

    def small_memory(input_ids, **options):
        rows.append(len(input_ids))
        if len(input_ids) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return generate(input_ids=input_ids, **options)

    monkeypatch.setattr(loaded.model, "generate", small_memory)
    assert list(wb.generate(loaded, PROMPTS, GenerationConfig(max_new_tokens=12))["base"]) == list(plain["base"])
    assert rows[:2] == [4, 2]


def test_sampling_is_seeded_and_leaves_the_random_state_alone(loaded):
    hot = GenerationConfig(max_new_tokens=12, temperature=1.5)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = wb.generate(loaded, PROMPTS, hot, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(first["base"]) == list(wb.generate(loaded, PROMPTS, hot, seed=1)["base"])
    assert list(first["base"]) != list(wb.generate(loaded, PROMPTS, hot, seed=2)["base"])


def test_an_answer_ends_at_the_templates_end_of_turn(loaded):
    """Also where the model's own configuration does not know that token as its end."""
    head = loaded.model.lm_head.weight
    end = loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.no_grad():
        kept = head.clone()
        head.zero_()
        head[end].fill_(0)
    own, loaded.model.generation_config.eos_token_id = loaded.model.generation_config.eos_token_id, None
    bias = torch.zeros(head.shape[0])
    bias[end] = 5.0
    hook = loaded.model.lm_head.register_forward_hook(lambda module, arguments, output: output + bias)
    try:
        table = wb.generate(loaded, ["Hello"], GenerationConfig(max_new_tokens=5))
    finally:
        hook.remove()
        loaded.model.generation_config.eos_token_id = own
        with torch.no_grad():
            head.copy_(kept)
    assert (table["base"][0], table["base_tokens"][0], table["base_ended"][0]) == ("", 0, True)


def test_cut_answers_are_told_from_ended_ones_and_repetition_is_measured(loaded):
    bias = torch.zeros(loaded.model.lm_head.weight.shape[0])
    bias[50] = 1e4
    hook = loaded.model.lm_head.register_forward_hook(lambda module, arguments, output: output + bias)
    try:
        table = wb.generate(loaded, ["Hello"], GenerationConfig(max_new_tokens=10))
    finally:
        hook.remove()
    assert (table["base_tokens"][0], table["base_ended"][0]) == (10, False)
    assert table["base_repeated_4grams"][0] == pytest.approx(
        6 / 7
    )  # ten times the same token: seven 4-grams, one of them new


def test_conversations_and_system_prompts(loaded):
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Why?"},
    ]
    table = wb.generate(loaded, [messages], GenerationConfig(max_new_tokens=3), DataConfig(system_prompt="Be brief."))
    assert "Why?" in table["prompt"][0]
    for bad in ("", 7, [], [{"role": "user"}]):
        with pytest.raises(wb.WorkbenchError, match="A prompt is a text or a list of"):
            wb.generate(loaded, [bad])


def test_prompts_may_come_as_any_iterable_of_texts():
    """A column of a DataFrame is how prompts usually lie in a notebook."""
    import pandas as pd

    from simpo_workbench.pairs.pairs import prompt_list

    assert prompt_list("Hi") == ["Hi"]
    assert prompt_list(pd.Series(["Hi", "You?"])) == prompt_list(text for text in ("Hi", "You?")) == ["Hi", "You?"]
    for wrong in (5, None, {"role": "user", "content": "Hi"}):
        with pytest.raises(wb.WorkbenchError, match="Prompts are a text, or a list of texts or of messages; got"):
            prompt_list(wrong)


FRAMED = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"


def test_a_prompt_that_a_template_has_framed_is_read_as_in_training(loaded):
    sampling = GenerationConfig(max_new_tokens=6)
    with pytest.raises(wb.WorkbenchError, match="framed as ChatML does it; give data.framed_prompts as_conversation"):
        wb.generate(loaded, ["Hi", FRAMED], sampling)
    read = wb.generate(loaded, FRAMED, sampling, DataConfig(framed_prompts="as_conversation"))
    assert read["base"][0] == wb.generate(loaded, "Why?", sampling)["base"][0]
    assert read["prompt"][0] == "Why?"
    kept = wb.generate(loaded, FRAMED, sampling, DataConfig(framed_prompts="keep"))
    assert kept["prompt"][0] == FRAMED


def test_sample_prompts_of_a_run_are_read_the_same_way(tiny_config):
    config = tiny_config.with_changes({"generation.prompts": [FRAMED], "generation.held_out_prompts": 0})
    with pytest.raises(wb.WorkbenchError, match="framed as ChatML"):
        wb.preflight(config)
    run = wb.train(
        config.with_changes(
            {"data.framed_prompts": "as_conversation", "training.max_steps": 1, "run.name": "read-as-conversation"}
        )
    )
    assert set(run.generations["prompt"]) == {"Why?"}


def test_pairs_that_are_sent_to_a_model_are_read_by_its_policy(loaded):
    """A run that keeps framed prompts scores them as well, whoever asks."""
    from simpo_workbench.config.run_config import RunConfig
    from simpo_workbench.engine.replies import _table

    row = {"prompt": FRAMED, "chosen": "Because it rained.", "rejected": "No."}
    asked = type("Asked", (), {"kind": "score", "values": {"pairs": [row]}})
    with pytest.raises(wb.WorkbenchError, match="framed by a template"):
        _table(None, asked, loaded, RunConfig())
    kept = RunConfig.from_dict({"data": {"framed_prompts": "keep", "on_template_mismatch": "keep"}})
    assert len(_table(None, asked, loaded, kept)) == 1
