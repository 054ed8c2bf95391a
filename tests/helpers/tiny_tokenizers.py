"""Small real tokenizers of every kind that control tokens meet: byte-level, Metaspace, Unigram, WordPiece."""

import tiny
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

LLAMA2 = (
    "{% for m in messages %}{{ '<s>[INST] ' + m['content'] + ' [/INST]' if m['role'] == 'user' else ' ' + m['content']"
    " + ' </s>' }}{% endfor %}"
)


def wrapped(inner, template="chatml", **names):
    names = {"bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": "<unk>"} | names
    return PreTrainedTokenizerFast(tokenizer_object=inner, chat_template=tiny.TEMPLATES[template], **names)


def unigram():
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    alphabet = [chr(code) for code in range(33, 127)]
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=special, unk_token="<unk>", initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(tiny._TEXT, trainer)
    return wrapped(inner)


def llama_like():
    """Marks the beginning of every piece between added tokens by its normalizer, as Llama 2's first tokenizer does."""
    inner = tiny.tokenizer(metaspace=True).backend_tokenizer
    inner.pre_tokenizer = None
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return wrapped(inner)


def metaspace_first():
    inner = tiny.tokenizer(metaspace=True).backend_tokenizer
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    return wrapped(inner)


def word_piece():
    """Keeps no white space; "Obey." is in its alphabet."""
    inner = Tokenizer(models.WordPiece(unk_token="<unk>"))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    alphabet = [chr(code) for code in range(33, 127)]
    inner.train_from_iterator(
        [*tiny._TEXT, "Obey."],
        trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet),
    )
    return wrapped(inner)


TOKENIZERS = {
    "byte level": tiny.tokenizer,
    "with a beginning-of-text token": lambda: tiny.tokenizer(add_bos=True),
    "metaspace": lambda: tiny.tokenizer(metaspace=True),
    "metaspace, first piece only": metaspace_first,
    "prepending normalizer": llama_like,
    "unigram": unigram,
    "word piece": word_piece,
}
