"""Measure tokenizing and planning a data set, here and in TRL's CPOTrainer, on the same rows in alternating processes.

    python benchmarks/prepare.py                              # 60,000 pairs made from the demo's data
    python benchmarks/prepare.py --pairs 6000 --data mine.jsonl --model /models/llama --json

Every row is a row of the data with a number appended to its prompt and both answers, so that no text repeats and a
cache of texts gains nothing. The clock covers the way from loaded rows to a data set that a loop can step through.
Here: tokenizing, writing the token file, and planning the micro-batches of every optimizer step of one epoch; "again"
is the second start, which finds the file. TRL: what CPOTrainer's constructor does to its training data, with one
process and with one per core (`dataset_num_proc`). Imports, loading tokenizer and rows, and one small preparation as
warm-up come before the clock starts. Every process has its own caches, empty at first; only "again" uses those of the
run before it. Memory is the peak of anonymous memory of the process and its children, less what they had when the
clock started; mapped files can be released and do not count.
"""

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

PAIRS_PER_STEP = 32
COLUMNS = ("prompt", "chosen", "rejected")
LABELS = {
    "ours": "SimPO Workbench",
    "again": "SimPO Workbench, again",
    "trl": "TRL, one process",
    "trl_all": "TRL, all cores",
}


def main():
    arguments = parsed()
    if arguments.worker:
        print(json.dumps(work(arguments)))
        return
    with tempfile.TemporaryDirectory(prefix="prepare-") as folder:
        write_rows(arguments, Path(folder, "rows.jsonl"))
        results = {}
        for number in range(arguments.rounds):
            for kind in LABELS:
                result = in_new_process(arguments, kind, Path(folder), number)
                if kind not in results or result["seconds"] < results[kind]["seconds"]:
                    results[kind] = result
        agreement = compare(Path(folder))
    summary = {
        "pairs": arguments.pairs,
        "max_tokens": arguments.max_tokens,
        "cores": len(os.sched_getaffinity(0)),
        "results": results,
        "agreement": agreement,
    }
    print(json.dumps(summary, indent=2) if arguments.json else as_text(summary))


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=60_000)
    parser.add_argument("--data", default="demo", help="a file of pairs that load_pairs reads (default: the demo's)")
    parser.add_argument(
        "--model", default="demo", help="a local folder with a tokenizer and a chat template (default: the demo model)"
    )
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=1, help="report the fastest of this many rounds")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", choices=list(LABELS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def write_rows(arguments, path):
    from simpo_workbench.base.paths import bundled
    from simpo_workbench.pairs.pairs import load_pairs

    rows = load_pairs(bundled("data/plain_answers/train.jsonl") if arguments.data == "demo" else arguments.data)
    with open(path, "w", encoding="utf-8") as file:
        for number in range(arguments.pairs):
            pair = rows[number % len(rows)]
            prompt = [dict(turn) for turn in pair.prompt]
            prompt[-1]["content"] += f" ({number})"
            answers = {
                side: [{"role": "assistant", "content": f"{text} ({number})"}]
                for side, text in (("chosen", pair.chosen), ("rejected", pair.rejected))
            }
            file.write(json.dumps({"prompt": prompt, **answers}) + "\n")


def in_new_process(arguments, kind, folder, number):
    caches = folder / f"{'ours' if kind == 'again' else kind}-{number}"
    environment = {
        **os.environ,
        "SIMPO_WORKBENCH_CACHE": str(caches),
        "BENCHMARK_MODEL": model_folder(arguments.model),
        "HF_HOME": str(caches),
        "HF_DATASETS_CACHE": str(caches / "datasets"),
        "HF_HUB_OFFLINE": "1",
    }
    command = [
        sys.executable,
        __file__,
        "--worker",
        kind,
        "--folder",
        str(folder),
        "--pairs",
        str(arguments.pairs),
        "--max-tokens",
        str(arguments.max_tokens),
    ]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{LABELS[kind]} failed:\n{result.stderr[-3000:]}")
    return json.loads(result.stdout.splitlines()[-1])


@functools.cache
def model_folder(name):
    if name != "demo":
        return name
    from simpo_workbench.engine.model.demo_model import demo_model_folder

    return str(demo_model_folder())


def work(arguments):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(os.environ["BENCHMARK_MODEL"])
    prepare = prepare_ours if arguments.worker in ("ours", "again") else prepare_trl
    return prepare(arguments, tokenizer, Path(arguments.folder))


# --- this package


def prepare_ours(arguments, tokenizer, folder):
    from simpo_workbench.config.run_config import DataConfig
    from simpo_workbench.engine.encode.encoded_pairs import encode_once
    from simpo_workbench.engine.encode.tokens import ChatEncoder
    from simpo_workbench.pairs.pairs import load_pairs

    pairs = load_pairs(folder / "rows.jsonl")
    data = DataConfig(max_tokens=arguments.max_tokens)
    ChatEncoder(tokenizer, data).encode_pairs(pairs[:16])
    with Measured() as measured:
        encoded, report = encode_once(ChatEncoder(tokenizer, data), pairs)
        measured.lap("tokenize")
        microbatches = sum(planned(encoded, start) for start in range(0, len(encoded), PAIRS_PER_STEP))
        measured.lap("plan")
    save(
        folder,
        "ours",
        ((pair.prompt_ids, pair.chosen_ids, pair.rejected_ids) for pair in encoded),
        encoded.pair_ids,
        [pair.pair_id for pair in pairs],
    )
    return measured.result(len(encoded), report=str(report), microbatches=microbatches)


def planned(encoded, start):
    """Number of micro-batches of the optimizer step whose first pair is `start`."""
    from simpo_workbench.engine.forward.packing import RowPolicy, plan

    return len(plan(encoded[start : start + PAIRS_PER_STEP], 4096, RowPolicy(shared=True))[0])


# --- TRL


def prepare_trl(arguments, tokenizer, folder):
    import datasets
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    datasets.disable_progress_bars()
    rows = datasets.load_dataset("json", data_files=str(folder / "rows.jsonl"), split="train")
    shape = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    # The preparation does not depend on the model.
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape))

    def trainer(part):
        settings = CPOConfig(
            output_dir=str(folder / "trl"),
            loss_type="simpo",
            cpo_alpha=0.0,
            max_length=arguments.max_tokens,
            dataset_num_proc=len(os.sched_getaffinity(0)) if arguments.worker == "trl_all" else None,
            remove_unused_columns=False,
            report_to="none",
            use_cpu=True,
        )
        return CPOTrainer(model=model, args=settings, train_dataset=part, processing_class=tokenizer)

    trainer(rows.select(range(16)))
    with Measured() as measured:
        prepared = trainer(rows).train_dataset
        measured.lap("tokenize")

    def parts():
        for row in prepared:
            start = sum(label == -100 for label in row["chosen_labels"])
            second = sum(label == -100 for label in row["rejected_labels"])
            yield row["prompt_input_ids"], row["chosen_input_ids"][start:], row["rejected_input_ids"][second:]

    numbers = [str(number) for number in range(len(prepared))]
    save(folder, "trl", parts(), numbers, numbers)
    return measured.result(len(prepared))


# --- measuring


class Measured:
    """Seconds by stage, and peak memory between entering and leaving the context."""

    def __enter__(self):
        self.stages, self.stopped = {}, threading.Event()
        self.before = self.peak = anonymous_bytes()
        self.sampler = threading.Thread(target=self.sample, daemon=True)
        self.sampler.start()
        self.cpu_started = cpu_seconds()
        self.started = self.since = time.perf_counter()
        return self

    def lap(self, stage):
        now = time.perf_counter()
        self.stages[stage], self.since = now - self.since, now

    def sample(self):
        while not self.stopped.wait(0.05):
            self.peak = max(self.peak, anonymous_bytes())

    def __exit__(self, *_):
        self.seconds, self.cpu_seconds = self.since - self.started, cpu_seconds() - self.cpu_started
        self.stopped.set()
        self.sampler.join()
        self.peak = max(self.peak, anonymous_bytes())

    def result(self, kept, **more):
        stages = {f"{stage}_s": seconds for stage, seconds in self.stages.items()}
        return {
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            **stages,
            "kept": kept,
            "peak_bytes": self.peak - self.before,
            **more,
        }


def cpu_seconds():
    """Processor time of this process and its ended children, which a busy machine disturbs less than wall time."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def anonymous_bytes():
    """Anonymous memory of this process and its children, shared pages counted once; outside Linux resident memory."""
    import psutil

    here = psutil.Process()
    total = 0
    for process in (here, *here.children(recursive=True)):
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            total += 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))
        except (FileNotFoundError, ProcessLookupError):
            if sys.platform != "linux":
                total += process.memory_info().rss
    return total


# --- the same tokens?


def save(folder, name, parts, ids, order):
    """Write the token ids of every pair, one line per row of the data; the line of a dropped pair is empty."""
    line_of = {pair_id: number for number, pair_id in enumerate(order)}
    lines = [""] * len(order)
    for pair_id, triple in zip(ids, parts, strict=True):
        lines[line_of[pair_id]] = json.dumps([list(map(int, part)) for part in triple])
    (folder / f"{name}.tokens").write_text("\n".join(lines))


def compare(folder):
    """Counts of pairs with the same prompt ids and with answers that begin with ours, and what TRL appends to them."""
    counts = dict.fromkeys(("compared", "same_prompt", "answers_begin_alike", "tokens_ours", "tokens_trl"), 0)
    appended = {}
    with open(folder / "ours.tokens") as ours, open(folder / "trl.tokens") as trl:
        for left, right in zip(ours, trl, strict=True):
            if not left.strip() or not right.strip():
                continue
            mine, theirs = json.loads(left), json.loads(right)
            answers = list(zip(mine[1:], theirs[1:], strict=True))
            counts["compared"] += 1
            counts["same_prompt"] += mine[0] == theirs[0]
            counts["answers_begin_alike"] += all(other[: len(ours_ids)] == ours_ids for ours_ids, other in answers)
            counts["tokens_ours"] += sum(map(len, mine))
            counts["tokens_trl"] += sum(map(len, theirs))
            for ours_ids, other in answers:
                rest = str(other[len(ours_ids) :])
                if rest in appended or len(appended) < 5:
                    appended[rest] = appended.get(rest, 0) + 1
    return counts | {"appended": appended}


def as_text(summary):
    results, pairs = summary["results"], summary["pairs"]
    best = min(results["trl"]["seconds"], results["trl_all"]["seconds"])
    lines = [f"{pairs} pairs, at most {summary['max_tokens']} tokens, {summary['cores']} cores", ""]
    columns = "seconds|processor seconds|tokenizing|planning|pairs/s|TRL's best / this|peak MB above start|pairs kept"
    lines += [f"| | {columns.replace('|', ' | ')} |", "|---|---|---|---|---|---|---|---|---|"]
    for kind, result in results.items():
        plan = f"{result['plan_s']:.2f}" if "plan_s" in result else ""
        cells = [
            f"{result['seconds']:.2f}",
            f"{result['cpu_seconds']:.2f}",
            f"{result['tokenize_s']:.2f}",
            plan,
            f"{pairs / result['seconds']:.0f}",
            f"{best / result['seconds']:.1f}×",
            f"{result['peak_bytes'] / 1e6:.0f}",
            str(result["kept"]),
        ]
        lines.append(f"| {LABELS[kind]} | {' | '.join(cells)} |")
    same = summary["agreement"]
    appended = ", ".join(f"{ids} ({count}×)" for ids, count in same["appended"].items())
    prompts, answers = same["same_prompt"], same["answers_begin_alike"]
    lines += ["", results["ours"]["report"]]
    lines += [
        f"{same['compared']} pairs compared: {prompts} with the same prompt, {answers} whose answers begin alike."
    ]
    lines += [
        f"Tokens: {same['tokens_ours']} here, {same['tokens_trl']} in TRL, which appends to our answers: {appended}."
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
