"""Make the demo's preference pairs: `python data/make_plain_answers.py`.

`plain_answers/written.jsonl` has prompts and chosen answers, written for this project. The rejected answers are sampled
here from the demo model itself, as in the SimPO paper's on-policy recipe: the model should give its current answers
less often. An answer that has not ended after MAX_NEW_TOKENS is cut after its last complete sentence and marked
"cut": true.
"""

import hashlib
import json
import random
import re
from pathlib import Path

SEED = 7
PROMPTS_PER_BATCH = 45
MAX_NEW_TOKENS = 64
TEMPERATURE, TOP_K = 1.0, 0  # the model's own distribution
PAIRS = {"train": 300, "eval": 60}
FOLDER = Path(__file__).parent / "plain_answers"


def sample_answers(model, tokenizer, prompts, seed):
    """(text, cut) per prompt: a sampled answer, and whether it was cut after its last sentence.

    ("", True) when the answer has no complete sentence.
    """
    import torch

    torch.manual_seed(seed)
    tokenizer.padding_side = "left"
    conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
    encoded = tokenizer.apply_chat_template(
        conversations, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True
    )
    with torch.no_grad():
        ids = model.generate(
            **encoded, do_sample=True, temperature=TEMPERATURE, top_k=TOP_K, max_new_tokens=MAX_NEW_TOKENS
        )
    end = tokenizer.eos_token_id
    answers = []
    for row in ids[:, encoded["input_ids"].shape[1] :].tolist():
        if end in row:
            answers.append((tokenizer.decode(row[: row.index(end)]).strip(), False))
        else:
            sentences = re.match(r"(.*[.!?])(\s|$)", tokenizer.decode(row), re.DOTALL)
            # A list item's number at the end is no sentence.
            text = re.sub(r"\s*\b\d+\.$", "", sentences[1]).strip() if sentences else ""
            answers.append((text, True))
    return answers


def build(model, tokenizer):
    """Write train.jsonl and eval.jsonl; returns the SHA-256 of each by name."""
    written = [json.loads(line) for line in (FOLDER / "written.jsonl").read_text(encoding="utf-8").splitlines()]
    pairs = []
    for start in range(0, len(written), PROMPTS_PER_BATCH):
        batch = written[start : start + PROMPTS_PER_BATCH]
        answers = sample_answers(model, tokenizer, [item["prompt"] for item in batch], SEED + start)
        for item, (rejected, cut) in zip(batch, answers, strict=True):
            if rejected and rejected != item["chosen"]:
                pairs.append(
                    {
                        "prompt": item["prompt"],
                        "chosen": item["chosen"],
                        "rejected": rejected,
                        "category": item["category"],
                        "cut": cut,
                    }
                )
        print(f"{start + len(batch)} of {len(written)} prompts answered, {len(pairs)} pairs", flush=True)
    if len(pairs) < sum(PAIRS.values()):
        raise SystemExit(f"only {len(pairs)} of {sum(PAIRS.values())} pairs: write more prompts")
    random.Random(SEED).shuffle(pairs)
    digests = {}
    for name, start in (("eval", 0), ("train", PAIRS["eval"])):
        lines = [json.dumps(pair, ensure_ascii=False) for pair in pairs[start : start + PAIRS[name]]]
        content = "\n".join(lines) + "\n"
        (FOLDER / f"{name}.jsonl").write_text(content, encoding="utf-8")
        digests[name] = hashlib.sha256(content.encode()).hexdigest()
    return digests


if __name__ == "__main__":
    import simpo_workbench as wb

    with wb.load_model(wb.ModelConfig(name="demo", load_in="fp32")) as demo:
        for name, digest in build(demo.model, demo.tokenizer).items():
            print(f"{name}.jsonl  sha256 {digest}")
