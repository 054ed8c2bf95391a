"""Check every CUDA path against its oracle, then measure the step beside TRL and Liger on a CUDA card.

Models have Llama's shapes and random weights; models, tokenizer and pairs are made here, nothing is downloaded. The
report lists what was skipped for lack of time, memory or a package. Started by gpu.sh.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import measure
import vs_trl
from contender import Contender, version
from gpu_oracle import check_paths

SHAPES = {
    "1B": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
    },
    "8B": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
}
VOCABULARY = 128_256
OURS = Contender("workbench")
TRL = Contender("TRL, one pair at a time", trl=True, micro_batch=1)
TRL_CHECKPOINTING = Contender("TRL, checkpointing", trl=True, checkpointing=True)
LIGER = Contender("Liger, checkpointing", liger=True, checkpointing=True)


@dataclass(frozen=True)
class Case:
    """One measurement: a model's shape, how its weights are stored, and the token counts of a pair."""

    shape: str
    quant: str
    prompt: int
    chosen: int
    rejected: int
    pairs_per_step: int = 4
    steps: int = 3
    seconds: int = 60  # expected duration; skipped when less time is left

    def __str__(self):
        return (
            f"{self.shape} {self.quant}, {self.prompt}+{self.chosen}+{self.rejected} tokens, {self.pairs_per_step}"
            " pairs a step"
        )


#: The most informative first: the last ones are skipped when time runs out.
CASES = [
    Case("1B", "bf16", 512, 256, 256),
    Case("8B", "nf4", 512, 256, 256, seconds=100),
    Case("8B", "bf16", 512, 256, 256, seconds=90),
    Case("8B", "nf4", 2048, 1024, 1024, pairs_per_step=2, seconds=110),
    Case("1B", "nf4", 1024, 512, 512),
    Case("1B", "bf16", 4096, 2048, 2048, pairs_per_step=2),
    Case("8B", "bf16", 4096, 2048, 2048, pairs_per_step=2, steps=2, seconds=140),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("."), help="folder for gpu.json")
    parser.add_argument("--seconds", type=float, default=560, help="time limit in seconds (default: 560)")
    arguments = parser.parse_args()
    started = time.monotonic()
    import torch

    if not torch.cuda.is_available():
        sys.exit("No CUDA device: nothing was measured. benchmarks/vs_trl.py measures on a CPU.")
    card = torch.cuda.get_device_properties(0)
    print(f"{card.name}, {card.total_memory / 2**30:.0f} GiB, torch {torch.__version__}", flush=True)
    checks = check_paths()
    for name, verdict in checks.items():
        print(f"oracle  {name:36} {verdict}", flush=True)
    wrong = [name for name, verdict in checks.items() if verdict.startswith("WRONG")]
    if wrong:
        print(f"These CUDA paths differ from their oracle: {', '.join(wrong)}. Do not trust the figures.", flush=True)
    contenders, skipped = _contenders()
    report = {
        "card": card.name,
        "versions": {
            name: version(name) for name in ("torch", "transformers", "peft", "trl", "liger-kernel", "bitsandbytes")
        },
        "oracle": checks,
        "cases": {},
    }
    with tempfile.TemporaryDirectory() as name:
        models = {}
        for case in CASES:
            left = arguments.seconds - (time.monotonic() - started)
            if left < case.seconds:
                skipped.append(f"{case}: {left:.0f} s left, {case.seconds} s needed")
                continue
            if case.quant == "nf4" and not version("bitsandbytes"):
                skipped.append(f"{case}: bitsandbytes is not installed")
                continue
            if case.shape not in models:
                models[case.shape] = _make_model(Path(name, case.shape), case.shape)
            left = arguments.seconds - (time.monotonic() - started)
            report["cases"][str(case)] = _measure(case, models[case.shape], contenders, Path(name), left, skipped)
            # After every case: the machine may be taken away.
            measure.write_json(arguments.out / "gpu.json", report | {"skipped": skipped})
    print("\nSkipped:" if skipped else "\nNothing was skipped.")
    for sentence in skipped:
        print(f"- {sentence}")
    measure.write_json(arguments.out / "gpu.json", report | {"skipped": skipped})
    if wrong:
        sys.exit(f"These CUDA paths differ from their oracle: {', '.join(wrong)}.")
    if any(case.get("same_work") is False and case.get("ratios") for case in report["cases"].values()):
        sys.exit("In some case the losses differ.")


def _contenders():
    contenders, skipped = [OURS], []
    for package, more in (("trl", [TRL, TRL_CHECKPOINTING]), ("liger-kernel", [LIGER])):
        if version(package):
            contenders += more
        else:
            skipped.append(f"{package} is not installed: no rows for it")
    return contenders, skipped


def _measure(case, base, contenders, folder, left, skipped):
    """Report of one case, measured once on every contender and printed as a table."""
    place = folder / "case"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    job = _job(case, base, place)
    peak = measure.measured_matmul(1, job["dtype"])
    runs, since = [], time.monotonic()
    print(f"\n{case}", flush=True)
    for contender in contenders:
        rest = left - (time.monotonic() - since)
        if rest < 20:
            skipped.append(f"{case}, {contender.name}: out of time")
            continue
        try:
            runs.append(vs_trl._run(1, contender, job, place, seconds=rest))
        except RuntimeError as error:
            skipped.append(f"{case}, {contender.name}: {str(error).strip().splitlines()[-1]}")
            if contender is OURS:
                break
    done = [contender for contender in contenders if any(run["contender"] == contender.name for run in runs)]
    if OURS not in done:
        return {"failed": skipped[-1]}
    summaries = {contender.name: vs_trl._summary(contender, runs, peak) for contender in done}
    ratios = {contender.name: vs_trl._ratios(contender, runs) for contender in done[1:]}
    work = json.loads((place / "work.json").read_text())
    report = {
        "job": job,
        "runs": runs,
        "contenders": summaries,
        "ratios": ratios,
        "shape": work["shape"],
        "lengths": vs_trl._lengths(work),
        "matmul_flops_per_second": {"median": peak, "each": [peak]},
        "left_out": vs_trl.LEFT_OUT,
    }
    vs_trl._print(report, dpo=False)
    apart = [ratio["largest_loss_difference"] for ratio in ratios.values() if "failed" not in ratio]
    report["same_work"] = vs_trl.same_work(apart, job)
    if apart and not report["same_work"]:
        print("THE LOSSES DIFFER: the contenders did not do the same work, so the ratios mean nothing.", flush=True)
    return report


def _make_model(folder, shape):
    """Folder of a model with random bf16 weights and a tokenizer in which every word is one token."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

    words = {
        word: index
        for index, word in enumerate(
            ["<unk>", "<|im_start|>", "<|im_end|>", *(f"w{number}" for number in range(20_000))]
        )
    }
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    template = (
        "{% for m in messages %}<|im_start|> {{ m['role'] }} {{ m['content'] }} <|im_end|> {% endfor %}{% if"
        " add_generation_prompt %}<|im_start|> assistant {% endif %}"
    )
    PreTrainedTokenizerFast(
        tokenizer_object=inner,
        chat_template=template,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<unk>",
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=16_384,
        rope_theta=500_000.0,
        eos_token_id=2,
        pad_token_id=2,
        bos_token_id=1,
        **SHAPES[shape],
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()
    return folder


def _job(case, base, folder):
    rng = random.Random(0)

    def text(count):
        return " ".join(f"w{rng.randrange(20_000)}" for _ in range(count))

    frame = 5  # tokens that the template adds around a user turn and before the answer
    count = case.pairs_per_step * case.steps
    with open(folder / "pairs.jsonl", "w") as file:
        for _ in range(count):
            prompt, chosen, rejected = (
                max(8, round(tokens * rng.uniform(0.7, 1.3)))
                for tokens in (case.prompt - frame, case.chosen, case.rejected)
            )
            file.write(json.dumps({"prompt": text(prompt), "chosen": text(chosen), "rejected": text(rejected)}) + "\n")
    longest = round(1.35 * (case.prompt + max(case.chosen, case.rejected)))
    arguments = argparse.Namespace(work="long", model=str(base), quant=case.quant, lora_r=16, checkpointing="auto")
    config = vs_trl.job_config(arguments, folder / "pairs.jsonl", case.pairs_per_step, longest, case.steps)
    return {
        "work": str(case),
        "made": "random words",
        "pairs": count,
        "pairs_per_step": case.pairs_per_step,
        "steps": case.steps,
        "threads": measure.default_threads(),
        "dtype": "bf16",
        "base": str(base),
        "config": config.model_dump(),
    }


if __name__ == "__main__":
    main()
