"""Make the demo's preference pairs: `python data/make_plain_answers.py`.

`plain_answers/prompts.jsonl` has prompts, each with a written answer (`reference`) and a check (`expect`: what a right
answer contains), written for this project. The answers of the pairs are the demo model's own, as in the SimPO paper's
on-policy recipe: its usual answer to each prompt (the likeliest tokens) and eight samples, a good one chosen and a bad
one rejected. So both are texts that the model can write, and what it can learn is which of them to prefer.
"""

import argparse
import hashlib
import json
import random
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from simpo_workbench.analysis.scores import repeated_4gram_share
from simpo_workbench.config.checks import Check

SEED, SAMPLES, PROMPTS_AT_ONCE = 7, 8, 12  # the usual answers are made for SAMPLES times as many prompts at once
TEMPERATURE, MAX_NEW_TOKENS = 0.8, 64
HELD_OUT = 60
#: A chosen answer has at most this many words and hardly repeats itself.
MOST_WORDS, MOST_REPEATED = 30, 0.1
#: A prompt is used when at least so many of its samples are right: what a model cannot say it cannot learn to prefer.
LEAST_RIGHT, MOSTLY_RIGHT = 2, 4
#: The end of a sentence: not of a number, an initial or an abbreviation within one.
SENTENCE_END = re.compile(r"(?<=[a-z)'\"])[.!?]['\"]?(?=\s+['\"(]?[A-Z0-9]|\s*\n)")
FOLDER = Path(__file__).parent / "plain_answers"
#: All samples, kept so that an interrupted run goes on. Not in the repository; their hash is.
SAMPLE_FOLDER = Path(__file__).parent.parent / "build" / "plain_answers"


@dataclass(frozen=True)
class Answer:
    """A sampled answer or its beginning. ended: it comes to an end."""

    text: str
    ended: bool

    @property
    def words(self):
        return re.findall(r"\w+", self.text.lower())

    def fault(self, check: Check) -> str:
        """Why it is no good answer; "" for a good one."""
        if not check.passes(self.text):
            return "wrong"
        if not self.ended:
            return "does not end"
        if repeated_4gram_share(self.words) > MOST_REPEATED:
            return "repeats itself"
        return "rambles" if len(self.words) > MOST_WORDS else ""


def with_beginnings(sample) -> list[Answer]:
    """The sample (text, ended), after its first sentence and its first two, if it has more."""
    text, ended = sample
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    return [*(Answer(text[:end], True) for end in ends[:2]), Answer(text, ended)]


def pairs_of(prompt, usual, samples) -> list[dict] | str:
    """The pairs of a prompt, one or two, or why there is none.

    Chosen: the longest good part of the usual answer; where it has none and most samples are right, the good answer
    that has most words in common with the written one. Rejected: once a wrong answer as long as the chosen one or
    shorter, and once the usual answer if it is bad, or else the longest that rambles. So length alone does not tell
    chosen from rejected.
    """
    check, written = Check.of(prompt["expect"]), Answer(prompt["reference"], True)
    right = sum(check.passes(text) for text, _ in samples)
    if right < LEAST_RIGHT:
        return "rarely right"
    answers = [answer for sample in (usual, *samples) for answer in with_beginnings(sample) if answer.text]
    faults = {answer: answer.fault(check) for answer in answers}
    usual_answer = Answer(*usual)
    good = [answer for answer in with_beginnings(usual) if not answer.fault(check)]
    if not good and right >= MOSTLY_RIGHT:
        good = sorted((answer for answer in faults if not faults[answer]), key=lambda one: _agreement(one, written))
    if not good:
        return "no good answer"
    chosen = good[-1]
    wrong = [answer for answer in faults if faults[answer] == "wrong" and answer.ended]
    short = [answer for answer in wrong if len(answer.words) <= len(chosen.words)]
    long = [answer for answer in faults if faults[answer] and len(answer.words) > MOST_WORDS]
    if faults.get(usual_answer):
        long = [usual_answer]
    rejected = [max(some, key=lambda answer: len(answer.words)) for some in (short or wrong, long) if some]
    more = {name: prompt[name] for name in ("category", "expect", "reference")}
    return [
        {
            "prompt": prompt["prompt"],
            "chosen": chosen.text,
            "rejected": answer.text,
            **more,
            "rejected_because": faults[answer],
        }
        for answer in dict.fromkeys(rejected)
    ] or "all answers are good"


def _agreement(answer, written):
    """Words in common, as F1 of the two sets of words."""
    ours, theirs = set(answer.words), set(written.words)
    return 2 * len(ours & theirs) / (len(ours) + len(theirs))


def answers_to(prompts, loaded, count, temperature) -> dict[str, list]:
    """{prompt: `count` answers (text, ended)}, sampled where the folder of samples does not have them yet."""
    from simpo_workbench.config.run_config import GenerationConfig
    from simpo_workbench.engine.encode.tokens import ChatEncoder
    from simpo_workbench.engine.generation import answer

    SAMPLE_FOLDER.mkdir(parents=True, exist_ok=True)
    encoder = ChatEncoder(loaded.tokenizer)
    generation = GenerationConfig(temperature=temperature, max_new_tokens=MAX_NEW_TOKENS)
    at_once, found = PROMPTS_AT_ONCE * SAMPLES // count, {}
    for start in range(0, len(prompts), at_once):
        texts = [prompt["prompt"] for prompt in prompts[start : start + at_once]]
        settings = json.dumps([SEED, temperature, MAX_NEW_TOKENS, count, texts])
        path = SAMPLE_FOLDER / f"{hashlib.sha256(settings.encode()).hexdigest()[:16]}.json"
        if not path.exists():
            conversations = [[{"role": "user", "content": text}] for text in texts for _ in range(count)]
            answers = [[one.text, one.ended] for one in answer(loaded, encoder, conversations, generation, SEED)]
            by_prompt = [answers[first : first + count] for first in range(0, len(answers), count)]
            path.write_text(json.dumps(dict(zip(texts, by_prompt, strict=True))), encoding="utf-8")
        found |= json.loads(path.read_text(encoding="utf-8"))
        print(f"{start + len(texts)} of {len(prompts)} prompts answered ({count} × at {temperature:g})", flush=True)
    return found


def build(loaded) -> None:
    """Write train.jsonl and eval.jsonl, and print what was dropped and what is in them."""
    prompts = read_lines(FOLDER / "prompts.jsonl")
    usual, samples = answers_to(prompts, loaded, 1, 0.0), answers_to(prompts, loaded, SAMPLES, TEMPERATURE)
    outcomes = [pairs_of(prompt, usual[prompt["prompt"]][0], samples[prompt["prompt"]]) for prompt in prompts]
    by_prompt = [outcome for outcome in outcomes if isinstance(outcome, list)]
    dropped = Counter(outcome for outcome in outcomes if isinstance(outcome, str))
    print(f"{len(by_prompt)} of {len(prompts)} prompts have pairs; dropped: {dict(dropped)}")
    random.Random(SEED).shuffle(by_prompt)
    held_out = [pairs[place % len(pairs)] for place, pairs in enumerate(by_prompt[:HELD_OUT])]  # both kinds in turn
    train = [pair for pairs in by_prompt[HELD_OUT:] for pair in pairs]
    shorter = sum(len(pair["chosen"].split()) < len(pair["rejected"].split()) for pair in held_out + train)
    print(f"rejected because: {dict(Counter(pair['rejected_because'] for pair in held_out + train))}")
    print(f"The chosen answer is the shorter one in {shorter / len(held_out + train):.0%} of the pairs.")
    for name, part in (("eval", held_out), ("train", train)):
        content = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in part)
        (FOLDER / f"{name}.jsonl").write_text(content, encoding="utf-8")
        print(f"{name}.jsonl: {len(part)} pairs, sha256 {hashlib.sha256(content.encode()).hexdigest()}")
    everything = json.dumps([[usual[prompt["prompt"]], samples[prompt["prompt"]]] for prompt in prompts])
    print(f"all samples: sha256 {hashlib.sha256(everything.encode()).hexdigest()}")


def read_lines(path) -> list[dict]:
    """The objects of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    import simpo_workbench as wb

    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with wb.load_model(wb.ModelConfig(name="demo", load_in="fp32")) as demo:
        build(demo)
