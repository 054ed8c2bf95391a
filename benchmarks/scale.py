"""Measure lists of many runs and runs of many steps: python benchmarks/scale.py [--json FILE]

Measured, each in a fresh process and without its imports: processor time of `wb.list_runs` over 500 runs; time of the
report and of the first view (records, charts, tiles) of a run of 20,000 steps. The runs are made up, as in the tests.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from fake_run import evaluation_record, fake_run, sampled, scores, train_record  # noqa: E402

from simpo_workbench.base.files import write_json, write_jsonl  # noqa: E402

RUNS, STEPS, EVERY, PAIRS = 500, 20_000, 1_000, 24
_LIST = """
    import time, pandas, simpo_workbench as wb
    from simpo_workbench.runs import root
    before = time.process_time()
    table = root.list_runs({folder!r})
    print(time.process_time() - before, len(table), table["accuracy"].notna().sum())
"""
_REPORT = """
    import time, pandas, plotly, simpo_workbench as wb
    from simpo_workbench.report import report
    run = wb.attach({folder!r})
    before = time.process_time()
    report.report_html(run)
    print(time.process_time() - before)
"""
_VIEW = """
    import time, pandas, plotly, simpo_workbench as wb
    from simpo_workbench.ui.train.run_monitor import RunMonitor
    run = wb.attach({folder!r})
    before = time.process_time()
    RunMonitor(run)
    print(time.process_time() - before)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        many, long = make_runs(Path(folder) / "many"), make_long_run(Path(folder) / "long")
        figures = {
            f"list_runs of {RUNS} runs, processor s": in_fresh_process(_LIST, many),
            f"report of {STEPS} steps, processor s": in_fresh_process(_REPORT, long),
            f"first view of {STEPS} steps, processor s": in_fresh_process(_VIEW, long),
        }
    for name, value in figures.items():
        print(f"{name:<60} {value:8.2f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


def in_fresh_process(code, folder) -> float:
    """The first number that a script prints in a process of its own."""
    script = textwrap.dedent(code).format(folder=str(folder))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SIMPO_WORKBENCH_QUIET": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[0])


def make_runs(root) -> Path:
    """A root folder with RUNS runs of 120 steps, each with a configuration of its own."""
    run = fake_run(root, "run-0000")
    for number in range(1, RUNS):
        copy = root / f"run-{number:04d}"
        shutil.copytree(run.path, copy)
        config = run.config.with_changes({"run.name": copy.name, "training.seed": number})
        config.to_yaml(copy / "config.yaml")
    return root


def make_long_run(root) -> Path:
    """A run of STEPS steps, evaluated and sampled every EVERY."""
    run = fake_run(root, "long", total_steps=20)
    records, first, first_answers = [], None, []
    for step in range(STEPS + 1):
        if step:
            records.append({**train_record(step, STEPS), "time": 1e9 + step})
        if step % EVERY == 0:
            table, answers = scores(step, STEPS, PAIRS), sampled(step, STEPS, ["One?", "Two?", "Three?"])
            table.to_parquet(run.folder.scores(step), index=False)
            write_jsonl(run.folder.generations(step), answers)
            record = evaluation_record(step, table, answers, first, first_answers)
            first, first_answers = first or record, first_answers or answers
            records.append(record)
    run.folder.scores(20).unlink()
    run.folder.generations(20).unlink()
    write_jsonl(run.folder.metrics, records)
    status = json.loads(run.folder.status.read_text())
    write_json(run.folder.status, {**status, "step": STEPS, "total_steps": STEPS})
    return run.path


if __name__ == "__main__":
    main()
