"""Tiny random-weight models and a small real tokenizer, built on the spot: breadth without a download."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizer, PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}{% if"
    " add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
#: Adds a beginning-of-text token, as Llama 3 does, and ends turns with something that is not the end-of-sequence token.
LLAMA3 = (
    "{{ '<s>' }}{% for m in messages %}{{ '<|start|>' + m['role'] + '<|end|>\n\n' + m['content'] | trim + '<|eot|>'"
    " }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}"
)
#: Refuses system turns and calls the assistant "model", as Gemma 2 does.
GEMMA = (
    "{{ '<s>' }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{%"
    " for m in messages %}{{ '<|start|>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] |"
    " trim + '<|eot|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>model\n' }}{% endif %}"
)
#: Puts an empty thinking block into the generation prompt when thinking is off, as Qwen3 does.
QWEN3 = CHATML.replace(
    "{{ '<|im_start|>assistant\n' }}",
    "{{ '<|im_start|>assistant\n' }}{% if enable_thinking is defined and enable_thinking is false %}{{"
    " '<think>\n\n</think>\n\n' }}{% endif %}",
)
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA, "qwen3": QWEN3}

_SPECIAL = [
    "<unk>",
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start|>",
    "<|end|>",
    "<|eot|>",
    "<think>",
    "</think>",
]
_TEXT = [
    "The quick brown fox jumps over the lazy dog. What is the capital of France? Paris, of course. user assistant"
    " system model"
] * 3
_SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


#: The families that the tests build, and what each one has that others have not.
FAMILIES = {
    "llama": {"tie_word_embeddings": True},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 16},
    "mixtral": {"num_local_experts": 4, "sliding_window": None},
    "gemma": {"head_dim": 8},
    "gemma2": {
        "head_dim": 8,
        "sliding_window": 16,
        "attn_logit_softcapping": 20.0,
        "final_logit_softcapping": 5.0,
        "query_pre_attn_scalar": 16,
    },
    "gemma3": {"model_type": "gemma3_text", "head_dim": 8, "sliding_window": 16, "sliding_window_pattern": 2},
    "cohere": {"logit_scale": 0.25},
    "cohere2": {"logit_scale": 0.25, "sliding_window": 16},
    "granite": {
        "logits_scaling": 4.0,
        "attention_multiplier": 0.2,
        "residual_multiplier": 0.5,
        "embedding_multiplier": 3.0,
    },
    "phi": {"num_key_value_heads": 4},
    "phi3": {"sliding_window": 24},
    "olmo2": {},
    "smollm3": {},
    "starcoder2": {"sliding_window": 16, "use_bias": True},
}
#: One family for each mechanism: full attention, a sliding window, soft-capping, a mixture of experts.
MECHANISMS = ("llama", "mistral", "gemma2", "mixtral")
#: Models that must not share prompts: convolutional, linear-attention and recurrent mixers beside attention.
HYBRIDS = {
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"], "block_auto_adjust_ff_dim": False},
    "qwen3_5_text": {
        "head_dim": 8,
        "layer_types": ["linear_attention", "linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    },
}


def tokenizer(template="chatml", add_bos=False, metaspace=False):
    """A byte-level BPE tokenizer of about 350 tokens; with `add_bos` it puts <s> in front of every text, as many do.

    metaspace: mark beginnings of words with "▁" instead, also at the beginning of a text, as Llama 2's tokenizer does.
    """
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Metaspace() if metaspace else pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.Metaspace() if metaspace else decoders.ByteLevel()
    alphabet = (
        sorted(set("".join(_TEXT)) | {"▁", "[", "]", "/", "I", "N", "S", "L", "y"})
        if metaspace
        else pre_tokenizers.ByteLevel.alphabet()
    )
    inner.train_from_iterator(
        _TEXT,
        trainers.BpeTrainer(vocab_size=400, special_tokens=_SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    if add_bos:
        from tokenizers.processors import TemplateProcessing

        inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))])
    eos = "<|im_end|>" if template in ("chatml", "qwen3") else "</s>"
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, chat_template=TEMPLATES[template], bos_token="<s>", eos_token=eos, unk_token="<unk>"
    )


class SlowTokenizer(PreTrainedTokenizer):
    """One token per character, in Python, as tokenizers without a Rust side are."""

    vocab_files_names = {"vocab_file": "vocab.txt"}  # noqa: RUF012 (transformers' own way)

    def __init__(self, more="", **kwargs):
        self.characters = [chr(code) for code in range(10, 127)] + list(more)
        super().__init__(**kwargs)

    @property
    def vocab_size(self):
        return len(self.characters)

    def get_vocab(self):
        return {character: index for index, character in enumerate(self.characters)} | self.added_tokens_encoder

    def _tokenize(self, text, **kwargs):
        return list(text)

    def _convert_token_to_id(self, token):
        return self.characters.index(token) if token in self.characters else 0

    def _convert_id_to_token(self, index):
        return self.characters[index]

    def save_vocabulary(self, save_directory, filename_prefix=None):
        path = Path(save_directory, "vocab.txt")
        path.write_text("".join(self.characters))
        return (str(path),)


def slow_tokenizer(more=""):
    """A tokenizer without Rust; `more`: characters that its vocabulary has beyond ASCII."""
    return SlowTokenizer(
        more,
        chat_template=CHATML,
        bos_token="<s>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        additional_special_tokens=["<|im_start|>"],
    )


def model(family="llama", vocab_size=400, seed=0, **shape):
    """A random model of a family, fp32, with weights large enough that log-probabilities differ between tokens."""
    more = dict((FAMILIES | HYBRIDS)[family])
    shape = {
        **_SMALL,
        "vocab_size": vocab_size,
        "pad_token_id": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **more,
        **shape,
    }
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(shape.pop("model_type", family), **shape))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return made.float()


def save(folder, family="llama", template="chatml", seed=0, **shape):
    """A tiny model folder as a user would have it; returns its path as text."""
    tok = tokenizer(template)
    made = model(family, len(tok), seed, **shape)
    made.config.eos_token_id = made.generation_config.eos_token_id = tok.eos_token_id
    made.save_pretrained(folder)
    tok.save_pretrained(folder)
    return str(folder)


def rows(count, start=0):
    """Preference rows without any meaning, all different, of varied lengths."""
    words = [
        "red",
        "green",
        "blue",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "sun",
        "moon",
        "star",
        "sea",
        "sand",
        "wind",
        "rain",
    ]
    made = []
    for i in range(start, start + count):
        pick = [words[(i * 7 + k * (i % 5 + 1)) % len(words)] for k in range(12)]
        made.append(
            {
                "prompt": f"Say {pick[0]} and {pick[1]} number {i}",
                "chosen": " ".join(pick[2 : 4 + i % 4]) + f" {i}",
                "rejected": " ".join(pick[3 : 6 + i % 6]) + f" or {i}",
                "topic": pick[0],
            }
        )
    return made
