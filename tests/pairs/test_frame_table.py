"""What a user would lose: prompts of further families trained as one user turn with the frame in it."""

import pytest

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.pairs.framed_prompts import REASON, framed_by, framed_turns
from simpo_workbench.pairs.pairs import load_pairs

#: Two turns and a question in each family's frame: opening of user and assistant, what ends a turn.
WRITTEN = {
    "NeMo": ("<extra_id_1>User\n", "<extra_id_1>Assistant\n", "\n"),
    "Llama 4": (
        "<|header_start|>user<|header_end|>\n\n",
        "<|header_start|>assistant<|header_end|>\n\n",
        "<|eot|>",
    ),
    "Granite": (
        "<|start_of_role|>user<|end_of_role|>",
        "<|start_of_role|>assistant<|end_of_role|>",
        "<|end_of_text|>\n",
    ),
    "Phi 4": ("<|im_start|>user<|im_sep|>", "<|im_start|>assistant<|im_sep|>", "<|im_end|>"),
    "Kimi": ("<|im_user|>user<|im_middle|>", "<|im_assistant|>assistant<|im_middle|>", "<|im_end|>"),
    "gpt-oss": ("<|start|>user<|message|>", "<|start|>assistant", "<|end|>"),
    "OpenAssistant": ("<|prompter|>", "<|assistant|>", "<|endoftext|>"),
    "InternLM": ("<|User|>:", "<|Bot|>:", "<eoh>\n"),
    "EXAONE": ("[|user|]", "[|assistant|]", "\n"),
    "RedPajama": ("<human>: ", "<bot>:", "\n"),
    "Baichuan": ("<reserved_106>", "<reserved_107>", ""),
    "OpenChat": ("GPT4 Correct User: ", "GPT4 Correct Assistant:", "<|end_of_turn|>"),
    "Guanaco": ("### Human: ", "### Assistant:", "\n"),
    "names of speakers": ("prompter: ", "assistant:", "\n"),
}
TURNS = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Capital of\nPeru?"},
]


def framed(user, assistant, end):
    return f"{user}Hi{end}{assistant}Hello.{end}{user}Capital of\nPeru?{end}{assistant}"


@pytest.mark.parametrize(("name", "marks"), WRITTEN.items(), ids=WRITTEN)
def test_every_family_is_refused_with_advice_and_read_as_a_conversation(name, marks):
    text = framed(*marks)
    assert (framed_by(text), framed_turns(text)) == (name, TURNS)
    rows = [{"prompt": prompt, "chosen": "Lima.", "rejected": "Cusco."} for prompt in ("Peru?", text)]
    assert load_pairs(rows).report().refused == {REASON: 1}
    assert list(load_pairs(rows, framed_prompts="as_conversation")[1].prompt) == TURNS


def test_the_first_turn_of_a_frame_may_be_bare_and_the_last_one_open():
    """As HelpSteer2 has its prompts of several turns."""
    text = "Hi<extra_id_1>Assistant\nHello.\n<extra_id_1>User\nCapital of\nPeru?"
    assert framed_turns(text) == TURNS
    with_system = f"<extra_id_0>System\n\n<extra_id_1>User\n{text}\n<extra_id_1>Assistant\n"
    row = {"prompt": with_system, "chosen_response": "Lima.\n<extra_id_1>", "rejected_response": "Cusco."}
    [pair] = load_pairs([row], framed_prompts="as_conversation")
    assert (list(pair.prompt), pair.chosen, pair.rejected) == (TURNS, "Lima.", "Cusco.")


@pytest.mark.parametrize(
    "prompt", ["Go on:\nUser: Hi\nAssistant:", "What does <extra_id_1> mean?", "AI:", "Be an assistant:"]
)
def test_a_prompt_that_only_mentions_speakers_is_none(prompt):
    assert framed_by(prompt) is None
    assert load_pairs([{"prompt": prompt, "chosen": "a", "rejected": "b"}])[0].prompt_text == prompt


@pytest.mark.parametrize("name", ["ChatML", "Llama 2", "NeMo"])
def test_an_answer_that_is_a_whole_framed_conversation_is_refused_or_read(name):
    user, assistant, end = {
        "ChatML": ("<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>\n"),
        "Llama 2": ("[INST] ", " [/INST] ", "</s>"),
        "NeMo": WRITTEN["NeMo"],
    }[name]
    end_of_user = "" if name == "Llama 2" else end

    def row(question):
        both = {
            side: f"{user}{question}{end_of_user}{assistant}{text}{end}"
            for side, text in (("chosen", "Lima."), ("rejected", "Cusco."))
        }
        return {"prompt": "Capital of Peru?", **both}

    with pytest.raises(WorkbenchError, match="the chosen answer is framed as .* as_conversation"):
        load_pairs([row("Capital of Peru?")])
    [pair] = load_pairs([row("Capital of Peru?")], framed_prompts="as_conversation")
    assert (pair.prompt_text, pair.chosen, pair.rejected) == ("Capital of Peru?", "Lima.", "Cusco.")
    with pytest.raises(WorkbenchError, match="different histories"):
        load_pairs([row("Capital of Chile?")], framed_prompts="as_conversation")


FRAMED_CONVERSATIONS = {
    "ChatML": "<|im_start|>user\nCapital of Peru?<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>",
    "Guanaco": "### Human: Capital of Peru?\n### Assistant: {}",
    "Llama 2 or Mistral": "<s>[INST] Capital of Peru? [/INST] {}</s>",
    "names of speakers": "Human: Capital of Peru?\nAssistant: {}",
}


@pytest.mark.parametrize("name", FRAMED_CONVERSATIONS)
def test_framed_answers_without_a_prompt_are_refused_with_the_option_that_reads_them(name):
    frame = FRAMED_CONVERSATIONS[name]
    rows = [{"chosen": frame.format("Lima."), "rejected": frame.format("Cusco.")}]
    with pytest.raises(WorkbenchError, match=f"chosen and rejected are framed as {name} does it.*as_conversation"):
        load_pairs(rows)
    pairs = load_pairs(rows, framed_prompts="as_conversation")
    assert pairs[0].prompt == ({"role": "user", "content": "Capital of Peru?"},)
    assert (pairs[0].chosen, pairs[0].rejected) == ("Lima.", "Cusco.")
    assert "1 pair that a chat template had framed was read as a conversation" in str(pairs.report())


def test_framed_answers_to_different_prompts_are_no_pair():
    frame = FRAMED_CONVERSATIONS["ChatML"]
    rows = [{"chosen": frame.format("Lima."), "rejected": frame.format("Cusco.").replace("Peru", "Chile")}]
    with pytest.raises(WorkbenchError, match="different histories"):
        load_pairs(rows, framed_prompts="as_conversation")


def test_transcripts_with_blank_lines_are_read_without_the_option():
    """Lines within an answer that begin with a name stay in it."""
    dialogue = "a\nHuman: b\nAssistant: d"
    rows = [{"chosen": f"\n\nHuman: q\n\nAssistant: {dialogue}", "rejected": "\n\nHuman: q\n\nAssistant: c"}]
    assert load_pairs(rows)[0].chosen == dialogue


def test_answers_that_repeat_the_prompt_with_names_of_speakers_are_framed():
    rows = [{"prompt": "q", "chosen": "user: q\nassistant: a", "rejected": "user: q\nassistant: b"}]
    with pytest.raises(WorkbenchError, match="the chosen answer is framed as names of speakers does it"):
        load_pairs(rows)
    pairs = load_pairs(rows, framed_prompts="as_conversation")
    assert (pairs[0].prompt_text, pairs[0].chosen, pairs[0].rejected) == ("q", "a", "b")


def test_a_written_dialogue_is_an_answer():
    """Its turns are not the prompt: somebody asked for a dialogue."""
    dialogue = "User: Hello\nAssistant: Hi"
    rows = [{"prompt": "Write a dialogue.", "chosen": dialogue, "rejected": f"{dialogue}!"}]
    assert load_pairs(rows)[0].chosen == dialogue
