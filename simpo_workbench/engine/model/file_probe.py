"""A script that reads one file of a model as its libraries will, under limits of time and memory, in its own process.

`file_check` runs it. Reads a task as JSON from standard input; its verdict is {"refused": reason or null} and what else
the task asks for. Only the libraries that the task needs are imported, before the limits begin.
"""

import itertools
import json
import re
import sys

LIMITS = {  # by kind of task: seconds of processor time, bytes beyond what the libraries take
    "tokenizer": (10, 3 * 1024**3),
    "word lists": (20, 3 * 1024**3),
    "patterns": (3, 512 * 1024**2),
    "config": (8, 2 * 1024**3),
}
#: An ordinary tokenizer makes at most a few tokens of a character, and reads them back as long as they were.
MOST_TOKENS_PER_CHARACTER = 64
_LENGTH = 2000
_SAMPLES = "aA0_-.,'\"( \t\n\ré中\u0e01\u0301\u200b😀\x00!/\\#=<>"
_TEXT = "The quick brown fox doesn't jump over 12,345 lazy dogs.\n\n    def f(x):\r\n\treturn x  # naïve 中文 😀\n"


def main() -> None:
    sys.path += sys.argv[1:]
    from process_limits import answer_within

    task = json.load(sys.stdin)
    answer = _TASKS[task["kind"]]()
    answer_within(*LIMITS[task["kind"]], lambda: answer(task))


def attack_texts(patterns: list[str]) -> list[str]:
    """Texts on which a pattern that backtracks without bounds does so: long repetitions of what it is made of."""
    texts = [_TEXT * 20, *(sample * _LENGTH + end for sample in _SAMPLES for end in ("", "\x01"))]
    for pattern in patterns:
        plain = [character for character in dict.fromkeys(pattern) if character not in "()[]{}|*+?^$\\"][:40]
        pairs = [first + second for first, second in itertools.pairwise(plain)]
        texts += [part * (_LENGTH // len(part)) + end for part in plain + pairs for end in ("", "\x01", "!")]
        texts.append(pattern * max(1, _LENGTH // max(1, len(pattern))))
    return list(dict.fromkeys(texts))


def patterns_in(value) -> list[str]:
    """All texts and regular expressions that a part of tokenizer.json searches for."""
    if isinstance(value, dict):
        own = [value[name] for name in ("Regex", "String") if isinstance(value.get(name), str)]
        return own + [pattern for part in value.values() for pattern in patterns_in(part)]
    return [pattern for part in value for pattern in patterns_in(part)] if isinstance(value, list) else []


def _tokenizer():
    from tokenizers import Tokenizer

    def answer(task):
        with open(task["path"], encoding="utf-8") as file:
            text = file.read()
        try:
            content = json.loads(text)
            if (content.get("model") or {}).get("dropout"):
                return {"refused": "splits texts at random (dropout in its model), so that no two encodings are alike"}
            tokenizer = Tokenizer.from_str(text)
        except (MemoryError, RecursionError):
            raise
        except Exception:  # what is damaged is reported by the library that loads it for use
            return {"refused": None}
        tokenizer.no_truncation()
        tokenizer.no_padding()
        parts = [content.get(name) for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder")]
        return _tried(
            attack_texts(list(dict.fromkeys(patterns_in(parts)))[:50]),
            lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
            lambda ids: tokenizer.decode(ids, skip_special_tokens=False),
        )

    return answer


def _tried(texts, encode, decode):
    """The verdict on a tokenizer after it has encoded these texts and read them back."""
    for text in texts:
        ids = encode(text)
        if max(len(ids), len(decode(ids))) > MOST_TOKENS_PER_CHARACTER * (len(text) + 100):
            return {"refused": f"makes {len(ids):,} tokens of {len(text):,} characters"}
    return {"refused": None}


def _word_lists():
    from contextlib import redirect_stdout

    with redirect_stdout(sys.stderr):
        from transformers import AutoTokenizer

    def answer(task):
        try:
            with redirect_stdout(sys.stderr):
                tokenizer = AutoTokenizer.from_pretrained(task["path"], trust_remote_code=False, local_files_only=True)
        except (MemoryError, RecursionError):
            raise
        except Exception:  # as above
            return {"refused": None}
        return _tried(
            attack_texts([]),
            lambda text: tokenizer.encode(text, add_special_tokens=False),
            lambda ids: tokenizer.decode(ids, skip_special_tokens=False),
        )

    return answer


def _patterns():
    def answer(task):
        for pattern in task["patterns"]:
            try:
                expression = re.compile(pattern)
            except (re.error, OverflowError) as error:
                return {"refused": f"has a regular expression that is none ({error}): {pattern[:60]!r}"}
            for name in task["names"]:
                expression.match(name)
        return {"refused": None}

    return answer


def _config():
    from contextlib import redirect_stdout

    with redirect_stdout(sys.stderr):
        from transformers import AutoConfig, AutoModelForCausalLM  # noqa: F401 (imported before the limits begin)
        from transformers.models.llama import modeling_llama  # noqa: F401 (brings torch and what models share)

    def answer(task):
        return {"refused": None, **model_sizes(AutoConfig.from_pretrained(task["path"], trust_remote_code=False))}

    return answer


def model_sizes(config) -> dict:
    """{"parameters", "tables"}: numbers that a model of a configuration keeps, learned and computed; no memory is
    taken for them.
    """
    import copy

    import torch
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tables": sum(buffer.numel() for buffer in model.buffers()),
    }


_TASKS = {"tokenizer": _tokenizer, "word lists": _word_lists, "patterns": _patterns, "config": _config}


if __name__ == "__main__":
    main()
