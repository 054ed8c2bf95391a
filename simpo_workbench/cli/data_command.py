"""The command that reads pairs and says what became of their rows, without a model."""

from __future__ import annotations

import dataclasses
import json

import click

from ..base.escape import json_for_terminal
from ..config.run_config import RunConfig


@click.command()
@click.argument("source", default="demo")
@click.option("--columns", metavar="NAMES", help="As data.columns, such as '{prompt: frage, chosen: gut}'.")
@click.option("--framed-prompts", metavar="POLICY", help="As data.framed_prompts.")
@click.option("--pairs-from-ranking", metavar="POLICY", help="As data.pairs_from_ranking.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable JSON instead of text.")
def data(source, columns, framed_prompts, pairs_from_ranking, as_json) -> None:
    """Read the pairs of SOURCE (a file, a folder, a hub id or 'demo') and say what became of every row: read, kept,
    refused and why, and what was noticed.
    """
    from ..pairs.data_sets import load_source

    given = {"columns": columns, "framed_prompts": framed_prompts, "pairs_from_ranking": pairs_from_ranking}
    changes = {f"data.{name}": value for name, value in given.items() if value is not None}
    config = RunConfig().with_changes({"data.train": source, **changes})
    pairs = load_source(source, "train", config.data)
    if as_json:
        report = dataclasses.asdict(pairs.report()) | {"pairs": len(pairs), "content_hash": pairs.content_hash}
        click.echo(json_for_terminal(json.dumps(report, indent=1, ensure_ascii=False)))
    else:
        click.echo(str(pairs))
