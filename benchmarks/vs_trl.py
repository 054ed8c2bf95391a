"""Measure one SimPO step in the workbench and in TRL's CPOTrainer, in processes that take turns.

Tokens, adapter, optimizer and threads are the same for both.

    python benchmarks/vs_trl.py --work long --data pairs.jsonl --rounds 3 --json result.json
    python benchmarks/vs_trl.py --work short --dpo          # SimPO against DPO, both in this engine

README.md in this folder explains what is measured and how to read it.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import measure
from contender import Contender, version
from works import WORKS, write_work

from simpo_workbench import RunConfig
from simpo_workbench.base.errors import WorkbenchError

LEARNING_RATE = 5e-5
#: Losses further apart than this mean different work. bf16 rounds, and the contenders round in different places.
LOSS_TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}
OURS = Contender("workbench")
TRL_AT_ONCE = Contender("TRL, all pairs at once", trl=True)
TRL_ONE_BY_ONE = Contender("TRL, one pair at a time", trl=True, micro_batch=1)
TRL_CHECKPOINTING = Contender("TRL, checkpointing", trl=True, checkpointing=True)
DPO = Contender("workbench, DPO", loss="dpo")
LEFT_OUT = [
    "loading and tokenizing",
    "one warm-up step of each contender, on pairs of the work (peak memory includes it)",
    "evaluation, sampling, saving, logging",
]


def main():
    arguments = _arguments()
    if not arguments.dpo and not version("trl"):
        sys.exit("TRL is not installed: pip install -e '.[bench]', or measure --dpo, which needs no peer.")
    peers = [
        TRL_AT_ONCE,
        *([] if arguments.single_peer else [TRL_ONE_BY_ONE]),
        *([TRL_CHECKPOINTING] if arguments.peer_checkpointing else []),
    ]
    try:
        report = compare(arguments, [OURS, DPO] if arguments.dpo else [OURS, *peers])
    except (WorkbenchError, RuntimeError) as error:
        sys.exit(str(error))
    if arguments.json:
        measure.write_json(arguments.json, report)
    if not report["same_work"]:
        sys.exit("The losses differ, so the contenders did not do the same work: the ratios mean nothing.")


def compare(arguments, contenders: list[Contender]) -> dict:
    """Report of everything that was measured, as plain values; prints progress and a table."""
    machine = measure.machine()
    print(
        f"{machine['processors']} processors, load average {machine['load_average'][0]:.2f}; {arguments.threads}"
        " threads for each contender."
    )
    _warn(measure.busy_warning(machine["busy_cores"], "before the start"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = _make_job(arguments, folder)
        print(f"{job['pairs']} pairs, {job['pairs_per_step']} a step: {job['made']}.", flush=True)
        runs, peaks = [], []
        for number, contender in measure.alternating(contenders, arguments.rounds):
            peaks.append(measure.measured_matmul(job["threads"], job["dtype"]))
            runs.append(_run(number, contender, job, folder))
        peaks.append(measure.measured_matmul(job["threads"], job["dtype"]))
        work = json.loads((folder / "work.json").read_text())
    report = {
        "machine": machine,
        "job": job,
        "adam": work["adam"],
        "shape": work["shape"],
        "lengths": _lengths(work),
        "left_out": LEFT_OUT,
        "runs": runs,
    }
    report["matmul_flops_per_second"] = {"median": statistics.median(peaks), "each": peaks}
    peak = statistics.median(peaks)
    report["contenders"] = {contender.name: _summary(contender, runs, peak) for contender in contenders}
    report["ratios"] = {contender.name: _ratios(contender, runs) for contender in contenders[1:]}
    apart = [ratio["largest_loss_difference"] for ratio in report["ratios"].values() if "failed" not in ratio]
    report["same_work"] = arguments.dpo or same_work(apart, job)
    _print(report, arguments.dpo)
    return report


def same_work(differences: list[float], job: dict) -> bool:
    """Whether the losses of all peers that ran agree; False when none ran."""
    return bool(differences) and all(difference <= LOSS_TOLERANCE[job["dtype"]] for difference in differences)


def _make_job(arguments, folder):
    """What every contender receives: the workbench's configuration, whose pairs.jsonl holds exactly the pairs of the
    work, and the numbers of pairs, steps and threads.
    """
    import torch
    from transformers import AutoTokenizer

    from simpo_workbench.engine.model.models import model_folder

    work = WORKS[arguments.work]
    per_step = arguments.pairs_per_step or work.pairs_per_step
    max_tokens = arguments.max_tokens or work.max_tokens
    steps = max(1, (arguments.pairs or work.pairs) // per_step)
    pairs = folder / "pairs.jsonl"
    config = job_config(arguments, pairs, per_step, max_tokens, steps)
    base = model_folder(config.model)
    made = write_work(
        pairs, arguments.work, arguments.data, AutoTokenizer.from_pretrained(base), steps * per_step, max_tokens
    )
    return {
        "work": arguments.work,
        "made": made,
        "pairs": steps * per_step,
        "pairs_per_step": per_step,
        "steps": steps,
        "threads": arguments.threads,
        "dtype": (
            "bf16" if arguments.quant == "bf16" or (arguments.quant == "nf4" and torch.cuda.is_available()) else "fp32"
        ),
        "base": str(base),
        "config": config.model_dump(),
    }


def job_config(arguments, pairs: Path, per_step: int, max_tokens: int, steps: int) -> RunConfig:
    """The workbench's configuration for a work whose pairs are in a file."""
    return RunConfig().with_changes(
        {
            "model.name": arguments.model,
            "model.load_in": arguments.quant,
            "data.train": str(pairs),
            "data.eval": str(pairs),  # nothing is evaluated, but a run needs held-out pairs
            "data.eval_limit": 1,
            "data.max_tokens": max_tokens,
            "lora.r": arguments.lora_r,
            "lora.alpha": 2.0 * arguments.lora_r,
            "training.learning_rate": LEARNING_RATE,
            "training.scheduler": "constant",
            "training.warmup_ratio": 0.0,
            "training.pairs_per_step": per_step,
            "training.max_steps": steps + 1,
            "training.gradient_checkpointing": arguments.checkpointing,
        }
    )


def _run(number, contender, job, folder, seconds=None):
    """Measurements of one contender's process, and the rates computed from them.

    A peer that runs out of memory gets {"failed": "out of memory"}; any other failure raises RuntimeError.
    """
    measure.write_json(folder / "task.json", {"contender": asdict(contender), "job": job})
    script = Path(__file__).with_name("liger_contender.py" if contender.liger else "contender.py")
    try:
        measure.run_child([str(script), str(folder)], job["threads"], seconds)
    except measure.OutOfMemory:
        if not (contender.trl or contender.liger):
            raise
        print(f"round {number}  {contender.name:24} out of memory", flush=True)
        return {"round": number, "contender": contender.name, "failed": "out of memory"}
    run = json.loads((folder / "result.json").read_text())
    work = json.loads((folder / "work.json").read_text())
    lengths = _lengths(work)
    run |= {
        "round": number,
        "contender": contender.name,
        "pairs_per_second": len(lengths) / run["seconds"],
        "tokens_per_second": sum(map(sum, lengths)) / run["seconds"],
        "seconds_per_step": run["seconds"] / job["steps"],
        "above_loaded_bytes": run["peak_bytes"] - run["loaded_bytes"],
        "least_flops": measure.step_flops(lengths, measure.ModelShape(**work["shape"]), run["checkpointed_share"]),
    }
    rate, memory = f"{run['pairs_per_second']:9.3f} pairs/s", _gb(run["above_loaded_bytes"])
    print(f"round {number}  {contender.name:24}{rate}  {memory} above the model", flush=True)
    _warn(measure.busy_warning(run["others_cores"], f"while {contender.name} ran"))
    return run


def _lengths(work):
    """(prompt, chosen, rejected) token counts of every timed pair, in the order of the steps."""
    return [
        tuple(len(pair[f"{part}_ids"]) for part in ("prompt", "chosen", "rejected"))
        for pair in itertools.chain(*work["steps"][1:])
    ]


def _summary(contender, runs, peak):
    """Medians over one contender's rounds.

    times_the_limit: T/T*, the measured time over the time of the least arithmetic at the machine's matrix-product rate.
    """
    mine = [run for run in runs if run["contender"] == contender.name]
    failed = next((run for run in mine if "failed" in run), None)
    if failed:
        return {"failed": failed["failed"]}
    names = (
        "pairs_per_second",
        "tokens_per_second",
        "seconds_per_step",
        "seconds",
        "loaded_bytes",
        "above_loaded_bytes",
        "peak_bytes",
        "own_cores",
        "others_cores",
    )
    summary = {name: statistics.median(run[name] for run in mine) for name in names}
    same = {name: mine[0][name] for name in ("least_flops", "memory_method", "initial_adapter", "losses")}
    return summary | same | {"times_the_limit": summary["seconds"] * peak / same["least_flops"]}


def _ratios(peer, runs):
    """Speed and memory of the workbench over those of a peer, by round, and the largest difference of any loss."""
    ours, theirs = ({run["round"]: run for run in runs if run["contender"] == name} for name in (OURS.name, peer.name))
    if any("failed" in run for run in theirs.values()):
        return {"failed": "out of memory"}
    speed, memory = (
        [ours[number][name] / max(1e-9, theirs[number][name]) for number in ours]
        for name in ("pairs_per_second", "above_loaded_bytes")
    )
    apart = [
        abs(here - there)
        for number in ours
        for here, there in zip(ours[number]["losses"], theirs[number]["losses"], strict=True)
    ]
    return {
        "pairs_per_second": statistics.median(speed),
        "pairs_per_second_each_round": speed,
        "above_loaded_bytes": statistics.median(memory),
        "above_loaded_bytes_each_round": memory,
        "largest_loss_difference": max(apart),
    }


def _print(report, dpo):
    rows = [["", "pairs/s", "tokens/s", "s/step", "loaded", "above it", "T/T*", "our speed", "our memory", "|Δ loss|"]]
    for name, contender in report["contenders"].items():
        if "failed" in contender:
            rows.append([name, contender["failed"], *[""] * 8])
            continue
        speeds = [
            f"{contender['pairs_per_second']:.3f}",
            f"{contender['tokens_per_second']:.0f}",
            f"{contender['seconds_per_step']:.2f}",
        ]
        sizes = [_gb(contender[f"{kind}_bytes"]) for kind in ("loaded", "above_loaded")]
        sizes.append(f"{contender['times_the_limit']:.2f}")
        compared = [""] * 3
        if ratio := report["ratios"].get(name):
            difference = "–" if dpo else f"{ratio['largest_loss_difference']:.1e}"
            compared = [f"{ratio['pairs_per_second']:.2f}×", f"{ratio['above_loaded_bytes']:.2f}×", difference]
        rows.append([name, *speeds, *sizes, *compared])
    job, lengths, ours = report["job"], report["lengths"], report["contenders"][OURS.name]
    prompt, chosen, rejected = (statistics.mean(column) for column in zip(*lengths, strict=True))
    print(f"\n{measure.table(rows)}\n")
    print(
        f"Medians of {len(report['runs']) // len(report['contenders'])} round(s) of {job['steps']} steps over"
        f" {sum(map(sum, lengths))} tokens (each prompt once, no padding, for every contender)."
    )
    print(
        f"Mean tokens: prompt {prompt:.0f}, chosen {chosen:.0f}, rejected {rejected:.0f}."
        f" Memory: {ours['memory_method']}."
    )
    print(
        f"T* is the time of the least arithmetic at {report['matmul_flops_per_second']['median'] / 1e9:.0f} GFLOP/s,"
        f" the rate of a large {job['dtype']} matrix product between the runs."
    )
    print(f"Not measured: {'; '.join(report['left_out'])}.")
    if dpo:
        ratio = report["ratios"][DPO.name]
        time_saved, memory_saved = 1 - 1 / ratio["pairs_per_second"], 1 - ratio["above_loaded_bytes"]
        print(
            f"Without a reference a step takes {time_saved:.0%} less time and {memory_saved:.0%} less memory above the"
            " model. DPO runs the base model in every step."
        )


def _gb(count):
    return f"{count / 1e9:.2f} GB"


def _warn(sentence):
    if sentence:
        print(sentence, flush=True)


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work",
        choices=WORKS,
        default="long",
        help="; ".join(f"{name}: {work.description}" for name, work in WORKS.items()) + " (default: long)",
    )
    parser.add_argument(
        "--data",
        default="demo",
        help="file of preference pairs (default: the bundled demo pairs, joined to the wanted lengths)",
    )
    parser.add_argument("--model", default="demo", help="demo, or a local folder (default: demo)")
    parser.add_argument(
        "--quant",
        choices=("fp32", "bf16", "nf4"),
        default="fp32",
        help="how the frozen weights are stored (default: fp32)",
    )
    parser.add_argument("--pairs", type=int, help="number of pairs in the timed steps")
    parser.add_argument("--pairs-per-step", type=int, help="pairs per optimizer step")
    parser.add_argument("--max-tokens", type=int, help="longest prompt and answer together")
    parser.add_argument("--rounds", type=int, default=3, help="how often every contender runs (default: 3)")
    parser.add_argument(
        "--threads", type=int, default=measure.default_threads(), help="threads of each contender (default: all)"
    )
    parser.add_argument("--lora-r", type=int, default=16, help="rank of the adapter; alpha is twice that (default: 16)")
    parser.add_argument(
        "--checkpointing", default="auto", help="training.gradient_checkpointing of the workbench (default: auto)"
    )
    parser.add_argument("--peer-checkpointing", action="store_true", help="also run TRL with gradient checkpointing")
    parser.add_argument("--single-peer", action="store_true", help="leave out TRL with one pair at a time")
    parser.add_argument("--dpo", action="store_true", help="compare SimPO with DPO in this engine instead of with TRL")
    parser.add_argument("--json", help="file for the full report")
    return parser.parse_args()


if __name__ == "__main__":
    main()
