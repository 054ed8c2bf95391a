"""How families of chat templates write a conversation as text: the table that `framed_prompts` reads with.

Standard library only.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Frame:
    """How one family of templates writes a conversation as text.

    opening: matches the start of a turn; its group "role" names who speaks, by a key of `roles`. ends: texts that end a
    turn. start: texts that may stand before the first turn. bare: the first user turn may have no opening, and the last
    one no end.
    """

    name: str
    opening: str
    roles: dict[str, str]
    ends: tuple[str, ...]
    start: tuple[str, ...] = ()
    bare: bool = False


_NAMED = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "model": "assistant"}
_CAPITALS = {"System": "system", "User": "user", "Assistant": "assistant", "Bot": "assistant"}
_LABELS = _CAPITALS | {
    "Human": "user",
    "prompter": "user",
    "human": "user",
    "user": "user",
    "assistant": "assistant",
    "AI": "assistant",
    "bot": "assistant",
    "system": "system",
}

FRAMES = (
    Frame(
        "ChatML", r"<\|im_start\|>(?P<role>system|user|assistant)\n", _NAMED, ("<|im_end|>",), ("<s>", "<|endoftext|>")
    ),
    Frame(
        "Llama 3",
        r"<\|start_header_id\|>(?P<role>system|user|assistant)<\|end_header_id\|>\n*",
        _NAMED,
        ("<|eot_id|>",),
        ("<|begin_of_text|>",),
    ),
    Frame("Gemma", r"<start_of_turn>(?P<role>system|user|model)\n", _NAMED, ("<end_of_turn>",), ("<bos>",)),
    Frame("Gemma 4", r"<\|turn>(?P<role>system|user|model)\n", _NAMED, ("<turn|>",), ("<bos>",)),
    Frame(
        "Phi, Zephyr or GLM",
        r"<\|(?P<role>system|user|assistant)\|>\n?",
        _NAMED,
        ("<|end|>", "</s>", "<|endoftext|>"),
        ("[gMASK]<sop>", "<s>"),
    ),
    Frame(
        "DeepSeek",
        r"<｜(?P<role>User|Assistant)｜>",
        {"User": "user", "Assistant": "assistant"},
        ("<｜end▁of▁sentence｜>",),
        ("<｜begin▁of▁sentence｜>",),
    ),
    Frame(
        "Command R",
        r"<\|START_OF_TURN_TOKEN\|><\|(?P<role>SYSTEM|USER|CHATBOT)_TOKEN\|>",
        {"SYSTEM": "system", "USER": "user", "CHATBOT": "assistant"},
        ("<|END_OF_TURN_TOKEN|>",),
        ("<BOS_TOKEN>",),
    ),
    Frame(
        "Llama 2 or Mistral",
        r"(?P<role>\[INST\]|\[/INST\])[ ]?",
        {"[INST]": "user", "[/INST]": "assistant"},
        ("</s><s>", "</s>"),
        ("<s>",),
    ),
    Frame(
        "Alpaca",
        r"### (?P<role>Instruction|Input|Response):[ ]?\n*",
        {"Instruction": "user", "Input": "user", "Response": "assistant"},
        ("</s>",),
        ("<s>",),
    ),
    Frame(
        "Vicuna",
        r"(?:(?<=\s)|(?<=</s>)|\A)(?P<role>SYSTEM|USER|ASSISTANT):[ ]?",
        {"SYSTEM": "system", "USER": "user", "ASSISTANT": "assistant"},
        ("</s>",),
        ("<s>",),
    ),
    Frame("NeMo", r"<extra_id_[01]>(?P<role>System|User|Assistant)\n?", _CAPITALS, ("<extra_id_1>",), bare=True),
    Frame(
        "Llama 4",
        r"<\|header_start\|>(?P<role>system|user|assistant)<\|header_end\|>\n*",
        _NAMED,
        ("<|eot|>",),
        ("<|begin_of_text|>",),
    ),
    Frame(
        "Granite",
        r"<\|start_of_role\|>(?P<role>system|user|assistant)<\|end_of_role\|>",
        _NAMED,
        ("<|end_of_text|>",),
    ),
    Frame("Phi 4", r"<\|im_start\|>(?P<role>system|user|assistant)<\|im_sep\|>\n?", _NAMED, ("<|im_end|>",)),
    Frame("Kimi", r"<\|im_(?P<role>system|user|assistant)\|>\w*<\|im_middle\|>", _NAMED, ("<|im_end|>",)),
    Frame(
        "gpt-oss",
        r"<\|start\|>(?P<role>system|developer|user|assistant)(?:<\|channel\|>\w+)?(?:<\|message\|>)?",
        _NAMED,
        ("<|end|>", "<|return|>"),
    ),
    Frame(
        "OpenAssistant",
        r"<\|(?P<role>prompter|assistant|system)\|>",
        _LABELS,
        ("<|endoftext|>", "</s>"),
    ),
    Frame(
        "InternLM",
        r"<\|(?P<role>System|User|Bot)\|>:?[ ]?",
        _CAPITALS,
        ("<eoh>", "<eoa>", "<TOKENS_UNUSED_0>"),
        ("<s>",),
    ),
    Frame("EXAONE", r"\[\|(?P<role>system|user|assistant)\|\][ ]?", _NAMED, ("[|endofturn|]",), ("[BOS]",)),
    Frame("RedPajama", r"<(?P<role>human|bot)>:[ ]?", _LABELS, ()),
    Frame(
        "Baichuan",
        r"<reserved_10(?P<role>[2367])>",
        {"2": "user", "6": "user", "3": "assistant", "7": "assistant"},
        (),
    ),
    Frame("OpenChat", r"GPT4 Correct (?P<role>User|Assistant):[ ]?", _CAPITALS, ("<|end_of_turn|>",), ("<s>",)),
    Frame("Guanaco", r"### (?P<role>System|User|Human|Assistant):[ ]?\n*", _LABELS, ("</s>",), ("<s>",)),
    Frame(
        "names of speakers",
        r"(?:\A|(?<=\n))(?P<role>System|User|Human|Assistant|AI|Bot|prompter|user|human|assistant|bot|system):[ ]?",
        _LABELS,
        ("</s>",),
    ),
)
#: What these two write in front of the first turn.
PREFACES = {
    "Alpaca": re.compile(r"Below is an instruction that describes a task[^#]{0,200}"),
    "Vicuna": re.compile(r"A chat between a [^:]{0,300}"),
}
#: How the frames begin that mark turns by more than a word; an answer that begins so may hold a frame.
OPENINGS = (
    *("<|", "<｜", "<start_of_turn>", "[/INST]", "[INST]", "### Response:", "### Instruction:", "### Assistant:"),
    *("### Human:", "### User:", "### System:", "ASSISTANT:", "USER:", "<s>", "<bos>", "<extra_id_", "[|", "<bot>:"),
    *("<human>:", "<reserved_10", "[gMASK]", "<BOS_TOKEN>", "GPT4 Correct "),
)  # fmt: skip
#: How a conversation by names of speakers begins.
SPEAKERS = ("Human:", "User:", "prompter:", "user:", "human:")
#: What one of the frames must hold; a text without any of these is not looked at further.
_QUICK = re.compile(
    r"<\||<start_of_turn>|<｜|<extra_id_[01]>|<reserved_10|<(?:human|bot)>:|\[/INST\]|\[\|"
    r"|### (?:Instruction|Response|Human|User|Assistant):|ASSISTANT:"
)
_ENDS_OPEN = re.compile(r"(?:Assistant|assistant|AI|[Bb]ot):\s*\Z")


def may_be_framed(text: str) -> bool:
    """Whether a text holds a mark of one of the frames, so that it is looked at further."""
    return _QUICK.search(text) is not None or (":" in text[-4:] and _ENDS_OPEN.search(text[-40:]) is not None)
