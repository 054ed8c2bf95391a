"""Write the documentation that is made from code: `make docs`.

docs/metrics.md and docs/settings.md are kept in the repository, and tests/test_docs.py holds them current. The
reference of all public names goes to build/docs.
"""

import re
from importlib import import_module
from pathlib import Path

from simpo_workbench.analysis.metrics import METRICS
from simpo_workbench.config.run_config import RunConfig, settings

DOCS = Path(__file__).parent
METRICS_HEAD = """# Metrics

<!-- Written by docs/generate.py from METRICS in simpo_workbench/analysis/metrics.py: edit that. -->

Every number that a run records or shows. The column *recorded* names the records of
[`metrics.jsonl`](run-folder.md#metricsjsonl) that have it; what is *derived* is computed from others where it is shown.
Records of evaluations (`eval`) put `eval/` before the key, except for `beta` and `gamma_beta_ratio`. Shares, drifts and
changes of an evaluation also have the ends of their 95 % interval, with `_low` and `_high` appended.

"""
SETTINGS_HEAD = """# Settings

<!-- Written by docs/generate.py from simpo_workbench/config/run_config.py: edit that. -->

Every setting of a run. On the command line each is an option, such as `--loss.beta 4`; in Python
`config.with_changes({"loss.beta": 4})`; in YAML a key of its section. The form hides settings marked ° until asked.
`loss.gamma` may be given instead of `loss.gamma_beta_ratio`: it is divided by the β that is given with it (in the same
file or the same changes; else the β that holds). A change of β alone keeps γ/β. `simpo-workbench presets` lists
ready-made configurations.
"""
#: Packages with public names.
PACKAGES = ("simpo_workbench", *(f"simpo_workbench.{room}" for room in ("analysis", "charts", "runs", "ui")))


def main():
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
    write_reference(DOCS.parent / "build" / "docs")


def metrics_page() -> str:
    """Markdown of METRICS in simpo_workbench/analysis/metrics.py."""
    rows = [
        (f"`{metric.key}`", metric.label, metric.unit, metric.better, recorded(metric.key), metric.explanation)
        for metric in METRICS.values()
    ]
    return METRICS_HEAD + table(("key", "label", "unit", "better", "recorded", "meaning"), rows)


def recorded(key: str) -> str:
    """The kinds of records that have a metric, by the table in docs/run-folder.md; "derived" when none has it."""
    page = (DOCS / "run-folder.md").read_text(encoding="utf-8")
    rows = re.search(r"^\| keys \| `train` \| `eval` \|\n(.*?)\n\n", page, re.MULTILINE | re.DOTALL)[1].splitlines()
    cells = next((row.strip("| ").split(" | ") for row in rows if f"`{key}`" in row), ("", "–", "–"))
    return ", ".join(kind for kind, when in zip(("train", "eval"), cells[1:], strict=True) if when != "–") or "derived"


def settings_page() -> str:
    """Markdown of the sections and settings of RunConfig, in the order in which they are written."""
    parts = [SETTINGS_HEAD]
    for name, field in RunConfig.model_fields.items():
        rows = [
            (f"`{info.path}`{' °' if info.rare else ''}", default(info.default), values(info), info.help)
            for info in settings()
            if info.section == name
        ]
        head = ("setting", "default", "values", "meaning")
        parts.append(f"## {name}\n\n{field.annotation.__doc__}\n\n{table(head, rows)}")
    return "\n".join(parts)


def write_reference(folder: Path):
    """Write HTML pages of all public names."""
    import pdoc

    for package in PACKAGES:
        module = import_module(package)
        for name in module.__all__:
            getattr(module, name)  # imports it: pdoc sees only what is there
    pdoc.render.configure(docformat="markdown", show_source=False)
    no_others = r"!simpo_workbench\.(?!(analysis|charts|runs|ui)$).*"
    pdoc.pdoc("simpo_workbench", no_others, output_directory=folder)


def default(value) -> str:
    """A setting's default as YAML would hold it, short enough for a table."""
    if value is None or value in ({}, []):
        return "–"
    if not isinstance(value, list):
        return f"`{value}`"
    return "; ".join(f"{item['prompt']} (with a check)" if isinstance(item, dict) else str(item) for item in value)


def values(info) -> str:
    """What a setting may be: choices, unit and bounds."""
    choices, unit = list(info.choices), info.unit
    if choices and info.structured:
        choices.append("a list")
    if choices and unit:
        choices.append(f"a number of {unit}")
        unit = ""
    return "; ".join(fact for fact in (" or ".join(choices), unit, info.bounds) if fact)


def table(head, rows) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


PAGES = {"metrics.md": metrics_page, "settings.md": settings_page}

if __name__ == "__main__":
    main()
