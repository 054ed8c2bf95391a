"""Damage to a run folder, and what every reader may say about it: the right answer, or a sentence.

`damages(folder)` is a Hypothesis strategy; `wrong_answers(damage, run, right)` compares all readers with those of the
whole run.
"""

import re
import shutil
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from click.testing import CliRunner
from hypothesis import strategies as st
from plotly.offline import get_plotlyjs

from simpo_workbench import WorkbenchError, find_run, list_runs, verify
from simpo_workbench.base.errors import DamageWarning
from simpo_workbench.cli.main import main
from simpo_workbench.engine import checkpoints
from simpo_workbench.report.report import write_report
from simpo_workbench.runs.metrics_tail import MetricsTail
from simpo_workbench.runs.run import Run
from simpo_workbench.runs.verified import read_changes, read_kept
from simpo_workbench.ui.pairs.read_pairs import read_pairs, write_pairs
from simpo_workbench.ui.pairs.run_leads import read_run_leads

#: Files that say nothing about a run's results, or that a user may change.
OUTSIDE = ("log.txt", "heartbeat.json", "lock", "report.html")
_STEP = 6
#: Settings of a tiny run with a file of every kind: half of its held-out pairs are final ones.
FINAL_PAIRS = {"data.final_fraction": 0.5, "loss.gamma_beta_ratio": 0.05}


@dataclass(frozen=True)
class Damage:
    """One fault: `kind` done to `file` (relative to the folder) at the byte `start`, over `count` bytes.

    other: the file whose content a copy of `file` replaces. is_harmless: it changes nothing that is published.
    """

    kind: str
    file: str
    start: int = 0
    count: int = 0
    flip: int = 1
    other: str = ""
    is_harmless: bool = False

    def do(self, folder: Path) -> None:
        path, target = folder / self.file, folder / (self.other or self.file)
        new = self.changed(path.read_bytes())
        if new is None:
            path.unlink()
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(new)

    def changed(self, content: bytes) -> bytes | None:
        """The file's content after the fault; None where it is deleted."""
        before, here, after = content[: self.start], content[self.start :], content[self.start + self.count :]
        return {
            "flip": before + bytes([here[0] ^ self.flip]) + here[1:] if here else content,
            "cut": before,
            "last byte": content[:-1] + b"?",
            "cut out": before + after,
            "repeat": content[: self.start + self.count] + here,
            "zero": before + bytes(min(self.count, len(here))) + after,
            "delete": None,
            "copy": content,
        }[self.kind]


@st.composite
def damages(draw, folder: Path):
    """One fault of any file of a run folder, at any place."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    file = draw(st.sampled_from(files))
    content = (folder / file).read_bytes()
    kinds = ["delete", "copy"]
    if content:
        kinds += ["flip", "flip", "cut", "cut", "cut out", "repeat", "zero"]
    kind = draw(st.sampled_from(kinds))
    other = ""
    if kind == "copy":
        others = [name for name in files if Path(name).suffix == Path(file).suffix and name != file]
        invented = re.sub(r"step-\d{6}", f"step-{draw(st.sampled_from([1, 5, 9])):06d}", file)
        other = draw(st.sampled_from([*others, invented]))
    # cuts at the ends of lines are the subtle ones
    lines = [0, *(match.end() for match in re.finditer(b"\n", content))]
    start = draw(st.sampled_from(lines[:200]) | st.integers(0, max(0, len(content) - 1)))
    start = min(start, max(0, len(content) - 1))
    count = draw(st.sampled_from([end - start for end in lines if end > start][:20] or [1]) | st.integers(1, 400))
    damage = Damage(kind, file, start, count, draw(st.integers(1, 255)), other)
    target = folder / (other or file)
    same = target.exists() and damage.changed(content) == target.read_bytes()
    # a copy under a name of its own damages nothing that is there
    is_harmless = same or file in OUTSIDE or (kind == "copy" and (not target.exists() or other in OUTSIDE))
    return replace(damage, is_harmless=is_harmless)


def answers(run: Run, with_report: bool = False) -> dict:
    """{reader: its answer, or the WorkbenchError that it raised}; any other error is let out.

    with_report: also those of the report, the terminal and the charts, which take longer.
    """
    readers = {
        "status": lambda: run.status,
        "config": lambda: run.config,
        "environment": lambda: run.environment,
        "records": lambda: run.records,
        "metrics": lambda: run.metrics,
        "scoring_noise": lambda: run.scoring_noise,
        "scores": lambda: run.scores,
        "scores_at": lambda: run.scores_at(3),
        "generations": lambda: run.generations,
        "compare": lambda: run.compare(),
        "final": lambda: final(run),
        "changes": lambda: read_changes(run.folder),
        "adapter": lambda: contents(run.adapter),
        "adapter_steps": run.adapter_steps,
        "adapter_at": lambda: {step: contents(run.adapter_at(step)) for step in (3, _STEP)},
        "newest checkpoint": lambda: checkpoints.newest_valid(run.folder),
        "list": lambda: list_runs(run.path.parent),
        "charts": lambda: tail(run),
        "verify": lambda: verify(run),
        "repr": lambda: repr(run),
        "objective": lambda: (run.objective.model_dump(), run.objective_note),
        "kept": lambda: read_kept(run.folder),
        "found": lambda: (found := find_run(run.config)) and found.name,
    }
    if with_report:
        readers["report"] = lambda: report(run)
        readers["plot"] = lambda: run.plot().to_json()
        readers["terminal"] = lambda: terminal(run)
        readers["lead history"] = lambda: read_run_leads(run, "")[0].lead_history(0.0, _STEP)
        readers["exported"] = lambda: exported(run)
    result = {}
    for name, read in readers.items():
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", DamageWarning)
                answer = read()
            told = [str(warning.message) for warning in caught if warning.category is DamageWarning]
            result[name] = Partial(answer, " ".join(told)) if told else answer
        except WorkbenchError as error:
            result[name] = error
    return result


@dataclass(frozen=True)
class Partial:
    """What is left of an answer, and the warning that names the rest."""

    answer: object
    told: str


def final(run):
    result = run.final
    return str(result), result.looks, result.table, result.scores


def contents(folder: Path) -> dict:
    paths = [path for path in folder.iterdir() if path.is_file() and path.name != "manifest.json"]
    return {path.name: path.read_bytes() for path in paths}


def tail(run):
    read = MetricsTail(run.folder.metrics)
    read.read()
    return read.frame(), read.damaged_lines


def report(run):
    """The page without its library and the time at which it was written."""
    path = run.path.parent / "report.html"
    write_report(run, path)
    text = path.read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    return re.sub(r"20\d\d-\d\d-\d\d \d\d:\d\d", "", text)


def terminal(run):
    """What `simpo-workbench show` prints. Errors: WorkbenchError with its sentence where it fails."""
    result = CliRunner().invoke(main, ["show", run.name, "--root", str(run.path.parent)])
    if result.exit_code == 0:
        return result.output
    if not isinstance(result.exception, (SystemExit, WorkbenchError)):
        raise result.exception
    raise WorkbenchError(result.output or str(result.exception))


def exported(run):
    """The file that the Pairs panel saves."""
    path = run.path.parent / "pairs.csv"
    path.unlink(missing_ok=True)
    write_pairs(read_pairs(run, None, None, "").table, path)
    return path.read_text(encoding="utf-8")


def wrong_answers(damage: Damage, run: Run, right: dict) -> list[str]:
    """Every reader whose answer is neither the right one nor a sentence."""
    now = answers(run, "report" in right)
    return [
        f"{damage}: {name} says {str(answer)[:300]}"
        for name, answer in now.items()
        if not isinstance(answer, WorkbenchError) and not _fine(name, answer, right[name], damage)
    ] + [
        f"{damage}: {name} raises {answer} without saying anything"
        for name, answer in now.items()
        if isinstance(answer, WorkbenchError) and (not str(answer) or name in ("list", "verify", "status"))
    ]


def _fine(name, answer, right, damage):
    file = damage.other or damage.file
    if isinstance(answer, Partial):
        return file in answer.told and _is_part(name, answer.answer, right)
    if _same(answer, right):
        return name != "verify" or damage.is_harmless
    if name == "status":  # rebuilt from the records, and said
        said = "read from the records" in answer.message or "missing or damaged" in answer.message
        known = answer.step == right.step and answer.total_steps == right.total_steps
        return said and (known or "is not known" in answer.message)
    if name in ("repr", "terminal", "report") and file == "status.json":
        said = " ".join(answer.split())
        return name == "repr" or "missing or damaged" in said or "read from the records" in said
    if name in ("repr", "terminal", "report") and _names(file, answer):
        without = {"repr": _PROBLEM, "terminal": _NOTE, "report": _DAMAGE}[name]
        # a chart without a point, or a page without its pairs, is not that of the whole run
        incomplete = name == "report" and (file == "metrics.jsonl" or file.startswith("scores/"))
        return incomplete or without.sub("", answer) == without.sub("", right)
    if name == "found":
        return answer is None
    if name == "list":
        if "config.yaml" in (damage.other or damage.file):
            return answer.empty or answer["model"][0] == "(configuration unreadable)"
        return len(answer) == 1 and all(
            answer[column][0] == right[column][0] or pd.isna(answer[column][0]) or answer[column][0] == ""
            for column in answer
            if column not in ("state", "started", "step", "total_steps", "problem")
        )
    if name == "charts":
        return answer[1] > 0 and len(answer[0]) <= len(right[0])
    if name == "verify":
        return True
    if name == "adapter_steps":
        return "checkpoints/" in damage.file
    if name == "newest checkpoint":
        return answer is None or bool(answer.notes)
    return False


#: What is said of damage beside what a reader says of the run itself.
_PROBLEM, _NOTE = re.compile(r"(?s): .*(?=\))"), re.compile(r"(?m)^Note: .*\n")
_DAMAGE = re.compile(r'(?m)^<p class="said bad" role="note">.*</p>\n')


def _names(file, text):
    """Whether a text says that a file is damaged or lost. Of long lists of files the first are named."""
    at = re.sub(r"\s+", " ", text)
    return any(word in at for word in (f"{file} is ", " more; `simpo-workbench verify"))


def _is_part(name, answer, right):
    """Whether what is left of an answer is right: nothing else than in the whole one, and every end in its place."""
    if name == "records":
        evaluations = [[record for record in records if record["kind"] == "eval"] for records in (answer, right)]
        return evaluations[0] == evaluations[1] and all(record in right for record in answer)
    if name == "metrics":
        whole = right[right["time"].isin(answer["time"])].reset_index(drop=True)
        last = [table[table["kind"] == "eval"]["step"].iloc[-1] for table in (answer, right)]
        return last[0] == last[1] and len(answer) < len(right) and answer.equals(whole[answer.columns])
    if name == "scores":
        whole = right[right["step"].isin(answer["step"])].reset_index(drop=True)
        return answer.equals(whole)  # a stray file under a name of its own takes nothing away
    if name in ("plot", "report"):
        return True
    return _same(_NOTE.sub("", answer) if name == "terminal" else answer, right)


def _same(answer, right):
    if isinstance(right, pd.DataFrame):
        return isinstance(answer, pd.DataFrame) and answer.equals(right)
    if isinstance(right, tuple):
        return all(_same(one, other) for one, other in zip(answer, right, strict=True))
    return answer == right


def copied(run: Run, place: Path) -> Run:
    """A copy of a run below `place`, in the place of an earlier copy, so that paths in answers are the same."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(run.path, place / run.name)
    return Run(type(run.folder)(place / run.name))
