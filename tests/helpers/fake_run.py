"""A plausible run folder without a model: the files of a run as the recorder leaves them, with numbers from a
formula.
"""

import math

from simpo_workbench.analysis.metrics import answer_metrics, score_metrics
from simpo_workbench.base.files import read_jsonl, write_json, write_jsonl
from simpo_workbench.config.run_config import RunConfig
from simpo_workbench.engine.recorder import Recorder
from simpo_workbench.runs.folder import new_run_folder
from simpo_workbench.runs.presence import Presence
from simpo_workbench.runs.run import Run

BETA, RATIO = 2.0, 0.5
REFERENCE = "Paris & nothing <else>."
PROMPTS = [
    "What is the capital of France?",
    "Make up a new word by combining two words, and say what it means.",
    "How do I keep basil alive indoors?",
]


def fake_run(
    root,
    name="plain-answers-0412",
    total_steps=120,
    last_step=None,
    pairs=24,
    state="finished",
    ruined=False,
    prompts=PROMPTS,
    texts=None,
    changes=None,
    message="Finished.",
    noise=None,
    checked=False,
    final=0,
):
    """A Run that got to `last_step` (default: the end). ruined: chosen answers fall, repetition rises. texts: (prompt,
    chosen, rejected) of pair 0.

    state: what status.json says at the end; a live state has this process as its owner, so it reads as alive.
    noise: of scoring, nats per token; None for a run in which it was not measured.
    final: how many final pairs there are; a finished run has scored them for the step that is recommended.
    checked: the first two prompts have checks: the first answer is right at step 0 alone, the second one always.
    """
    last_step = total_steps if last_step is None else last_step
    config = RunConfig.from_dict(
        {"loss": {"beta": BETA, "gamma_beta_ratio": RATIO}, "generation": {"prompts": list(prompts)}}, changes
    )
    folder = new_run_folder(root, name, "fake")
    config.to_yaml(folder.config)
    write_json(folder.environment, environment(final))
    frame = texts_of("pair", pairs)
    if texts is not None:
        frame.loc[0, ["prompt", "chosen", "rejected"]] = list(texts)
    frame.to_parquet(folder.pairs, index=False)
    presence = Presence(folder, "worker")
    recorder = Recorder(folder, config, presence)
    recorder.status["total_steps"] = total_steps
    if final:
        recorder.final_scores(0, scores(0, total_steps, final, name="final"))
        texts_of("final", final).to_parquet(folder.final_pairs, index=False)
    first_answers, first_scores = [], None
    for step in range(last_step + 1):
        if step:
            recorder.train_step(train_record(step, total_steps), 0.5)
        if step % 20 == 0 or step == total_steps:
            numbers = scores(step, total_steps, pairs, ruined)
            answers = sampled(step, total_steps, prompts, ruined)
            if checked:
                answers[0] |= {"right": step == 0, "reference": REFERENCE}
                answers[1]["right"] = True
            measured = {"eval/scoring_noise": noise} if step == 0 and noise is not None else {}
            recorder.evaluation(
                evaluation_record(step, numbers, answers, recorder.first_evaluation(), first_answers, first_scores)
                | measured,
                numbers,
                answers,
                1.0,
            )
            first_answers = first_answers or answers
            first_scores = numbers if first_scores is None else first_scores
        if step == 50:
            recorder.event(step, "paused", "Paused after step 50.")
    if final and state == "finished" and (recommended := recorder.settle_recommended()):
        recorder.final_scores(recommended, scores(recommended, total_steps, final, name="final"))
    recorder.state(state, message, step=last_step)
    presence._lock_file.close()  # else the folder would be held until the garbage is collected
    return Run(folder)


def texts_of(name, pairs):
    """The texts of so many pairs."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "pair_id": f"{name}-{n:03d}",
                "prompt": f"Question {n}?",
                "chosen": f"Short answer {n}.",
                "rejected": f"A long and winding answer {n}.",
            }
            for n in range(pairs)
        ]
    )


def train_record(step, total_steps):
    """One step's metrics: a margin that grows along a wave, rewards and loss that follow from it (eq. 6 of the SimPO
    paper).
    """
    margin = BETA * (-0.3 + 0.95 * step / total_steps + 0.12 * math.sin(2.1 * step))
    chosen = -1.8 - 0.1 * step / total_steps
    return {
        "kind": "train",
        "step": step,
        "loss": math.log1p(math.exp(BETA * RATIO - margin)),
        "rewards/chosen": BETA * chosen,
        "rewards/rejected": BETA * chosen - margin,
        "rewards/margins": margin,
        "rewards/accuracies": 0.5,
        "rewards/beyond_gamma": 0.25,
        "logps/chosen": chosen,
        "logps/rejected": chosen - margin / BETA,
        "learning_rate": 1e-4 * min(1, step / 12) * 0.5 * (1 + math.cos(math.pi * step / total_steps)),
        "grad_norm": 1.0 + 0.3 * math.cos(step),
        "beta": BETA,
        "gamma_beta_ratio": RATIO,
        "tokens_per_second": 214.0,
        "pairs_per_second": 2.1,
        "peak_memory_bytes": 1_900_000_000,
    }


def rescore(run, step, table):
    """Write a step's scores anew, and the means of them that its record has."""
    table.to_parquet(run.folder.scores(step))
    records = read_jsonl(run.folder.metrics)
    for record in records:
        if record["kind"] == "eval" and record["step"] == step:
            record["eval/pairs"] = len(table)
            for side in ("chosen", "rejected"):
                record[f"eval/logps/{side}"] = float(table[f"{side}_avg_logp"].mean())
    write_jsonl(run.folder.metrics, records)


def scores(step, total_steps, pairs, ruined=False, name="pair"):
    """A scores table: the lead of pair n goes from −0.6 … 0.25 up by 0 … 0.9 nats per token."""
    import pandas as pd

    progress, rows = step / total_steps, []
    for n in range(pairs):
        chosen = -1.8 + 0.02 * (n % 5) - (2.0 if ruined else 0.1) * progress
        lead = -0.6 + 0.85 * n / max(1, pairs - 1) + progress * (0.9 - 0.15 * (n % 7))
        margin = BETA * lead
        rows.append(
            {
                "step": step,
                "pair_id": f"{name}-{n:03d}",
                "chosen_tokens": 17 + n % 5,
                "rejected_tokens": 40 + n % 9,
                "chosen_avg_logp": chosen,
                "rejected_avg_logp": chosen - lead,
                "chosen_reward": BETA * chosen,
                "rejected_reward": BETA * (chosen - lead),
                "margin": margin,
                "correct": margin > 0,
                "beyond_gamma": margin > BETA * RATIO,
                "loss": math.log1p(math.exp(BETA * RATIO - margin)),
                "gradient_weight": BETA / (1 + math.exp(margin - BETA * RATIO)),
                "truncated": False,
                "beta": BETA,
                "gamma_beta_ratio": RATIO,
            }
        )
    return pd.DataFrame(rows)


def sampled(step, total_steps, prompts, ruined=False):
    """Answers to the sample prompts: they get shorter and end; of a ruined run they loop."""
    progress, answers = step / total_steps, []
    for n, prompt in enumerate(prompts):
        loops = ruined and progress > 0.3
        text = (
            "strengthing " * 30
            if loops
            else f"Answer {n} at step {step}: "
            + "it depends on a number of things, and each of them matters. " * (3 - round(2 * progress))
        )
        answers.append(
            {
                "step": step,
                "prompt": prompt,
                "answer": text.strip(),
                "tokens": 64 if loops else round(62 - 40 * progress) + n,
                "ended": not loops and (n + 3 * progress) >= 1,
                "repeated_4grams": 0.9 if loops else 0.06 + 0.02 * n * progress,
            }
        )
    return answers


def evaluation_record(step, table, answers, first, first_answers=(), first_scores=None):
    """The metrics record of one evaluation, as the engine makes it."""
    return {
        "kind": "eval",
        "step": step,
        **score_metrics(table, first, first_scores),
        **answer_metrics(answers, first_answers),
    }


def environment(final=0):
    share = f"{final} of 54 held-out pairs are final pairs." if final else "24 held-out pairs are too few."
    return {
        "versions": {"torch": "2.13.0", "transformers": "5.1.0"},
        "python": "3.11.9",
        "platform": "Linux",
        "device": "CPU, 2 threads",
        "compute_dtype": "float32",
        "seed": 0,
        "train_pairs_sha256": "ab" * 32,
        "final_share": share,
        "data_notes": ["Training pairs: 200 pairs kept, none refused.", "Held-out pairs: 24 pairs, none dropped."],
    }
