"""Every decoder-only family of the installed transformers: a tiny random model of it is trained, scored and asked.

`python benchmarks/families.py [kind ...]` prints one line per kind of model, `--write` writes docs/models.md. A line
says whether both answers share their prompt or why not, which layers get adapters, and how much of the weights NF4
leaves as they are. Kinds that have no tiny model, or that the workbench refuses, stand with the reason. FAULT is an
error that is no sentence for users.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import torch
import transformers
from bitsandbytes.nn import Params4bit
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.logging import set_verbosity_error

import simpo_workbench as wb
from simpo_workbench.base.errors import WorkbenchError, first_line
from simpo_workbench.config.run_config import ModelConfig
from simpo_workbench.engine.forward.small_model import NoSmallModel, small_model
from simpo_workbench.engine.model import models

#: Not text decoders of a prompt: encoders, speech, recurrent models with kernels of their own, whole image models.
LEFT_OUT = {
    *("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart", "mvp", "pegasus", "plbart"),
    *("prophetnet", "beam", "zamba"),
    *("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "git", "megatron-bert"),
    *("rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm", "xlm-roberta", "xlm-roberta-xl"),
    *("xmod", "xlnet", "reformer", "cpmant", "musicgen", "musicgen_melody", "moshi", "trocr", "whisper", "fuyu"),
    *("phi4_multimodal", "got_ocr2", "emu3", "mllama", "ctrl", "openai-gpt", "rwkv", "xlstm", "blt", "kimi_linear"),
    *("moss_transcribe_diarize", "gpt-sw3", "gpt_neox_japanese", "recurrent_gemma"),
}
#: Settings that a real model of the kind names and the class leaves empty.
NAMED = {
    "deepseek_v2": {"num_experts_per_tok": 2, "n_routed_experts": 8, "topk_method": "greedy", "num_hidden_layers": 4},
    "dots1": {"n_routed_experts": 8, "n_shared_experts": 1, "num_hidden_layers": 4},
    "granitemoehybrid": {"layer_types": ["attention"] * 4, "num_hidden_layers": 4},
    "hunyuan_v1_moe": {"num_hidden_layers": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2, "num_hidden_layers": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_hidden_layers": 4, "num_dense_layers": 1},
    "nemotron": {"num_key_value_heads": 8, "head_dim": 128},
}
_STEPS = 3
_WORDS = "red green blue one two three four five six seven eight nine ten sun moon sea"
_PAGE = Path(__file__).parents[1] / "docs" / "models.md"
_HEAD = """# Models

What becomes of every kind of decoder-only model in transformers {version}, tried by `python benchmarks/families.py
--write` on a tiny random model of its default configuration: three steps of training in fp32 and NF4, scores, answers,
checkpoint and adapter. A real model of a kind may have other layers; its own structure is proved when it is loaded.

- **Prompt**: *shared* where both answers of a pair go through the model with one copy of their prompt; *twice* where
  each answer has a copy of its own, which is as right and slower; *fails* where training ends in an error of a library.
- **NF4 leaves**: share of the weights, without embeddings and head, that `model.load_in: nf4` does not quantize.
  Experts that are stacked in one parameter get neither NF4 nor adapters.

| kind | prompt | layers with adapters | NF4 leaves | why |
|---|---|---|---|---|
"""


def families() -> list[str]:
    """The kinds of decoder-only models, one name for a model and its text part."""
    kinds = []
    for kind in sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - LEFT_OUT):
        has_text_part = f"{kind}_text" in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        if not has_text_part and not kind.endswith("_assistant"):
            kinds.append(kind)
    return kinds


def tried(kind: str, folder: Path) -> dict:
    """What becomes of a kind of model: {"shared", "adapted", "nf4_left", "note"}, or {"refused"}, or {"fault"}."""
    model_folder = folder / "model"
    shutil.rmtree(model_folder, ignore_errors=True)
    try:
        config = AutoConfig.for_model(kind, **NAMED.get(kind, {})).get_text_config(decoder=True)
        if getattr(config, "is_encoder_decoder", False):
            return {"refused": "an encoder-decoder"}
        model = small_model(config)
        model(input_ids=torch.arange(3, 40)[None], use_cache=False)
    except NoSmallModel as error:
        return {"refused": f"no tiny model could be built: {error}"}
    except Exception as error:
        return {"refused": f"its default configuration makes no working model: {first_line(error)}"}
    tiny = Path(wb.make_tiny_model(folder / "tiny"))
    model.save_pretrained(model_folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny / name, model_folder / name)
    outcome = {}
    for load_in in ("fp32", "nf4"):
        try:
            run = wb.train(_config(model_folder, load_in, folder))
        except WorkbenchError as error:
            outcome[load_in] = str(error)
            continue
        except Exception as error:
            return {"fault": f"{load_in}: {type(error).__name__}: {first_line(error)}"}
        outcome[load_in] = ""
        environment = json.loads((run.folder.path / "environment.json").read_text())
        losses = run.metrics.loc[lambda records: records["kind"] == "train", "loss"]
        if len(losses) != _STEPS or not losses.notna().all():
            return {"fault": f"{load_in}: the losses are {losses.tolist()}"}
        shutil.rmtree(run.folder.path)
    if outcome["fp32"]:
        return {"refused": outcome["fp32"]}
    return {
        "shared": environment["shared_prompts"],
        "note": outcome["nf4"] or environment["prompts_not_shared_because"],
        "adapted": sorted({name.rpartition(".")[2] for name in environment["adapted_layers"]}),
        "nf4_left": None if outcome["nf4"] else _left_by_nf4(model_folder),
    }


def _config(model_folder, load_in, folder):
    rows = [
        {"prompt": f"Say {word}", "chosen": f"{word} it is", "rejected": f"no {word * 3}"} for word in _WORDS.split()
    ]
    train, held_out = folder / "train.jsonl", folder / "eval.jsonl"
    train.write_text("\n".join(map(json.dumps, rows[:12])))
    held_out.write_text("\n".join(map(json.dumps, rows[12:])))
    return wb.RunConfig.from_dict(
        {
            "model": {"name": str(model_folder), "load_in": load_in},
            "data": {"train": str(train), "eval": str(held_out), "max_tokens": 256},
            "lora": {"r": 4},
            "training": {"max_steps": _STEPS, "pairs_per_step": 4, "eval_every": 0, "max_tokens_per_microbatch": 512},
            "generation": {"prompts": ["Say sky"], "held_out_prompts": 1, "max_new_tokens": 8},
            "run": {"root": str(folder / "runs")},
        }
    )


def _left_by_nf4(model_folder):
    """Share of the numbers in a model's weights, embeddings and head left out, that NF4 leaves unquantized."""
    with models.load_base(ModelConfig(name=str(model_folder), load_in="nf4")) as loaded:
        whole = quantized = 0
        embeddings = [m.weight for m in loaded.model.modules() if isinstance(m, torch.nn.Embedding)]
        outside = {id(weight) for weight in (*embeddings, loaded.model.get_output_embeddings().weight)}
        for parameter in loaded.model.parameters():
            if id(parameter) in outside:
                continue
            numbers = parameter.quant_state.shape.numel() if isinstance(parameter, Params4bit) else parameter.numel()
            whole, quantized = whole + numbers, quantized + numbers * isinstance(parameter, Params4bit)
    return 1 - quantized / whole


def page(outcomes: dict[str, dict]) -> str:
    """The page on models, Markdown, from {kind: what `tried` says of it}."""
    lines = []
    for kind, outcome in outcomes.items():
        why = next((outcome[key] for key in ("refused", "fault", "note") if outcome.get(key)), "")
        why = re.sub(r"The model '[^']*' ", "It ", why)
        prompt, adapted, left = "fails" if "fault" in outcome else "refused", "", ""
        if "shared" in outcome:
            prompt, adapted = "shared" if outcome["shared"] else "twice", ", ".join(outcome["adapted"])
            left = "" if outcome["nf4_left"] is None else f"{outcome['nf4_left']:.0%}"
        lines.append(f"| {kind} | {prompt} | {adapted} | {left} | {why.replace('|', chr(92) + '|')} |")
    return _HEAD.format(version=transformers.__version__) + "\n".join(lines) + "\n"


def main() -> None:
    """Try the kinds that are named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--write", action="store_true", help="write docs/models.md")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    set_verbosity_error()
    torch.set_num_threads(1)
    outcomes = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kinds or families():
            started = time.perf_counter()
            outcomes[kind] = tried(kind, Path(folder))
            print(f"{kind:22} {time.perf_counter() - started:5.1f} s  {json.dumps(outcomes[kind])}", flush=True)
    if arguments.write:
        _PAGE.write_text(page(outcomes))
    words = Counter(next(iter(outcome)) for outcome in outcomes.values())
    print(dict(words))
    sys.exit(1 if words["fault"] else 0)


if __name__ == "__main__":
    main()
