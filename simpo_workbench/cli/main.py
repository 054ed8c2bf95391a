"""The command line: each command calls one of the public functions."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import click

from .._version import __version__
from ..base.errors import DamageWarning, SecretWarning, SettingWarning, WorkbenchError, first_line
from ..base.escape import json_for_terminal
from ..base.format import counted, in_one_line
from ..config.run_config import RUNS_ROOT, RunConfig
from . import run_commands
from .data_command import data
from .gate import show_controls
from .options import SettingsCommand, changes_of, root_option, with_settings

FAILED, WRONG_USE = 1, 2


class _Commands(click.Group):
    """Shows a WorkbenchError as its text: exit status 1, or 2 when the command line or the configuration was wrong."""

    def main(self, *arguments, **options):
        show_controls()
        return super().main(*arguments, **options)

    def invoke(self, context):
        try:
            return super().invoke(context)
        except (WorkbenchError, TimeoutError) as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(WRONG_USE if isinstance(error, _WrongConfig) else FAILED)
        except KeyboardInterrupt as interrupt:
            click.echo(str(interrupt) or "Interrupted.", err=True)
            sys.exit(FAILED)


class _WrongConfig(WorkbenchError):
    """A configuration that is not valid: exit status 2."""


_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable JSON instead of text.")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="simpo-workbench")
def main() -> None:
    """Tune a language model on preference pairs with SimPO, and see whether it got better or broke."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # without it tokenizers warns at every fork
    for kind in (SettingWarning, SecretWarning, DamageWarning):
        warnings.simplefilter("ignore", kind)  # `_warn`, `_write_report` and `_tell_damage` print them instead


run_commands.add_to(main)
main.add_command(data)


@main.command(cls=SettingsCommand)
@with_settings
def demo(**options) -> None:
    """Train the demo: SmolLM2-135M-Instruct, NF4 and LoRA, 230 pairs.

    It takes four to five minutes on two CPU cores that do nothing else.
    """
    _train(_config(None, "demo", options), is_demo=True)


@main.command(cls=SettingsCommand)
@click.argument("config", type=click.Path(), required=False)
@click.option("--preset", "preset_name", help="Start from a preset instead of a file (see `simpo-workbench presets`).")
@click.option("--detach", is_flag=True, help="Train in a process of its own and return at once.")
@click.option("--show-config", is_flag=True, help="Print the resulting configuration as YAML and stop.")
@click.option(
    "--resume",
    "resumed",
    metavar="NAME",
    help="Continue this run here, from its newest valid checkpoint; `resume NAME` does so in a process of its own.",
)
@with_settings
def train(config, preset_name, detach, show_config, resumed, **options) -> None:
    """Train what CONFIG (a YAML file) or a preset says, with any setting changed on the command line."""
    if resumed:
        _resume_here(resumed, config or preset_name or detach or show_config, changes_of(options))
        return
    config = _config(config, preset_name, options)
    if show_config:
        click.echo(config.to_yaml(), nl=False)
    elif detach:
        from ..runs.launch import start

        _warn(config)
        run = start(config)
        root = config.run.root
        click.echo(f"Started {run.name} in {run.path}. Watch it: simpo-workbench show {run.name} --root {root}")
    else:
        _train(config)


@main.command(cls=SettingsCommand)
@click.argument("config", type=click.Path(), required=False)
@click.option("--preset", "preset_name", help="Start from a preset instead of a file (see `simpo-workbench presets`).")
@_json
@with_settings
def preflight(config, preset_name, as_json, **options) -> None:
    """Measure what training CONFIG will take: a few real steps on the longest pairs, time, memory, dropped pairs.

    Nothing is kept.
    """
    config = _config(config, preset_name, options)
    from ..engine.preflight import preflight as measure

    result = measure(config)
    if as_json:
        _echo_json(json.dumps(result.as_dict(), indent=1, ensure_ascii=False))
    else:
        click.echo(str(result))


def _echo_json(text):
    click.echo(json_for_terminal(text))


def _config(path, preset_name, options) -> RunConfig:
    if path and preset_name:
        raise click.UsageError("Give a configuration file or --preset, not both.")
    try:
        if path:
            return RunConfig.from_yaml(path, changes_of(options))
        from ..config.presets import preset

        return preset(preset_name or "demo").with_changes(changes_of(options))
    except WorkbenchError as error:
        raise _WrongConfig(str(error)) from None


def _warn(config):
    for sentence in config.warnings():
        click.echo(f"Note: {sentence}", err=True)


def _resume_here(name, other_options, changes):
    root = changes.pop("run.root", RUNS_ROOT)
    if other_options or changes:
        raise click.UsageError(
            "--resume continues a run as it is: only --run.root may be combined with --resume. `clone` makes a new run"
            " with changed settings."
        )
    from ..runs.folder import find_run_folder
    from ..runs.more_steps import is_finished_error
    from ..runs.run import Run

    folder = find_run_folder(name, root)
    if (status := Run(folder).status).state == "finished":
        raise is_finished_error(folder, status.total_steps)

    def go_on(on_record):
        from ..engine.training import train_in_process

        train_in_process(folder, resume=True, on_record=on_record)
        return Run(folder)

    _show(go_on)


def _train(config: RunConfig, is_demo: bool = False):
    _warn(config)

    def begin(on_record):
        from ..engine.training import train as train_here

        return train_here(config, on_record=on_record)

    _show(begin, is_demo)


def _show(train_run, is_demo=False):
    """Train with a progress bar, then print the outcome and write the report."""
    from .last_screen import print_summary
    from .terminal import Progress

    with Progress() as progress:
        run = train_run(progress.show)
    status = run.status
    report = _write_report(run)
    print_summary(run, report, after_demo=is_demo)
    if status.state != "finished":
        click.echo(status.message, err=True)
        sys.exit(FAILED)


def _tell_damage(run):
    """Print a note for everything of a run that is damaged or lost."""
    from ..runs.damage import damage_of

    for sentence in damage_of(run.folder):
        click.echo(f"Note: {sentence}", err=True)


def _write_report(run, output=None):
    """The path of a run's report, with notes on damage and on secrets in its texts before it is written."""
    from ..report.report import write_report
    from ..runs.secret_texts import secrets_sentence

    _tell_damage(run)
    if sentence := secrets_sentence(run.folder):
        click.echo(f"Note: {sentence}", err=True)
    return write_report(run, output)


#: Columns of the list of runs for which a terminal has no room; problems stand below it.
_NOT_IN_THE_TABLE = ["data", "accuracy_low", "accuracy_high", "pairs", "verdict", "started", "problem"]


@main.command()
@root_option
@_json
def runs(root, as_json) -> None:
    """List all runs, the newest first."""
    from ..runs.root import list_runs
    from .terminal import print_table

    table = list_runs(root)
    if as_json:
        _echo_json(table.to_json(orient="records", force_ascii=False, indent=1, date_format="iso"))
    elif table.empty:
        click.echo(f"No runs in {root!r} yet. `simpo-workbench demo` makes one.")
    else:
        print_table(table.drop(columns=_NOT_IN_THE_TABLE))
        for name, problem in table.loc[table["problem"] != "", ["name", "problem"]].itertuples(index=False):
            click.echo(f"{name}: {in_one_line(problem, 400)}")


@main.command()
@click.argument("name")
@root_option
@_json
def show(name, root, as_json) -> None:
    """Show where a run stands: state, progress, held-out results before and after, the doctor's verdicts."""
    from ..runs.run import attach
    from .last_screen import print_summary, summary
    from .terminal import print_status

    run = attach(name, root)
    if as_json:
        from dataclasses import asdict

        from ..runs.damage import damage_of

        facts = {"name": run.name, "path": str(run.path), **asdict(run.status), "damage": damage_of(run.folder)}
        facts |= {"lora": run.lora, **summary(run)}
        _echo_json(json.dumps(facts, ensure_ascii=False, indent=1))
    else:
        _tell_damage(run)
        print_status(run)
        print_summary(run)


@main.command()
@click.argument("pairs")
@click.option("--run", "run_name", help="Score with the model and adapter of this run.")
@click.option("--step", type=int, help="With --run: the adapter kept at this step; 0 is the base model.")
@click.option("--model", help="Score with this model instead: demo, a local folder or a hub id.")
@click.option("--adapter", help="With --model: this PEFT adapter on it.")
@click.option("--output", type=click.Path(), help="Write the table to this .csv, .jsonl or .parquet file.")
@root_option
@_json
def score(pairs, run_name, step, model, adapter, output, root, as_json) -> None:
    """Score every pair of PAIRS (a file, a folder, a hub id or 'demo'): log-probabilities, rewards, margin."""
    from ..analysis.scores import share_of
    from ..pairs.data_sets import load_source

    write = _table_writer(output)
    config, folder, run = _which_model(run_name, step, model, adapter, root)
    own = pairs in (config.data.train, config.data.eval)  # other files need not have the run's column names
    source = load_source(pairs, "eval", config.data if own else config.data.model_copy(update={"columns": {}}))
    click.echo(f"{source.report()} Loading the model …", err=True)
    from ..engine.model.models import load_model
    from ..engine.scoring import score as score_pairs

    with load_model(config.model, folder, config.data, run) as loaded:
        click.echo(f"Scoring {counted(len(source), 'pair')} …", err=True)
        table = score_pairs(loaded, source, loss=config.loss, data=config.data)
    write(table)
    if as_json:
        _echo_json(table.to_json(orient="records", force_ascii=False, indent=1))
        return
    click.echo(f"{table.attrs['report']}")
    click.echo(f"chosen ahead       {share_of(table['correct'], table['prompt'])}")
    click.echo(f"beyond γ           {share_of(table['beyond_gamma'], table['prompt'])}")
    click.echo(
        f"log-probability    chosen {table['chosen_avg_logp'].mean():.3f}, rejected"
        f" {table['rejected_avg_logp'].mean():.3f} nats per token"
    )
    click.echo(f"margin             {table['margin'].mean():.3f} (β {config.loss.beta:g}, γ {config.loss.gamma:g})")
    click.echo(f"Written to {output}." if output else "Keep the table with --output scores.csv.")


@main.command()
@click.argument("prompts", nargs=-1, required=True)
@click.option("--run", "run_name", help="Answer with the model and adapter of this run, base and tuned side by side.")
@click.option("--step", type=int, help="With --run: the adapter kept at this step.")
@click.option("--model", help="Answer with this model instead: demo, a local folder or a hub id.")
@click.option("--adapter", help="With --model: this PEFT adapter on it.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=128, show_default=True)
@click.option("--temperature", type=click.FloatRange(0, 5), default=0.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@root_option
@_json
def generate(prompts, run_name, step, model, adapter, max_new_tokens, temperature, seed, root, as_json) -> None:
    """Answer PROMPTS with the base and the tuned model."""
    from ..config.run_config import GenerationConfig
    from .terminal import print_answers

    config, folder, run = _which_model(run_name, step, model, adapter, root)
    click.echo("Loading the model …", err=True)
    from ..engine.generation import generate as generate_answers
    from ..engine.model.models import load_model

    with load_model(config.model, folder, config.data, run) as loaded:
        top_p = config.generation.top_p
        generation = GenerationConfig(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p)
        table = generate_answers(loaded, list(prompts), generation, config.data, seed)
    if as_json:
        _echo_json(table.to_json(orient="records", force_ascii=False, indent=1))
    else:
        print_answers(table)


def _which_model(run_name, step, model, adapter, root):
    """(configuration, adapter folder or None, run or None) of a run, or of a model by its name."""
    if (run_name is None) == (model is None):
        raise click.UsageError("Say which model: either --run NAME, or --model NAME (with --adapter FOLDER).")
    if model:
        return RunConfig().with_changes({"model.name": model}), adapter, None
    from ..runs.run import attach

    run = attach(run_name, root)
    if step == 0:
        return run.config, None, run
    return run.config, run.adapter if step is None else run.adapter_at(step), run


@main.command()
@click.argument("name")
@click.option("--output", type=click.Path(), help="Where to write it; by default report.html in the run's folder.")
@root_option
def report(name, output, root) -> None:
    """Write a run's report, one self-contained HTML file, and show before and after and the doctor's verdicts."""
    from ..runs.run import attach
    from .last_screen import print_summary

    run = attach(name, root)
    print_summary(run, _write_report(run, output))


@main.command()
@_json
def presets(as_json) -> None:
    """List the presets."""
    from ..config.presets import list_presets
    from .terminal import print_table

    table = list_presets().reset_index()
    if as_json:
        _echo_json(table.to_json(orient="records", force_ascii=False, indent=1))
    else:
        print_table(table)


@main.command()
@click.argument("folder", required=False)
@click.option(
    "--remote",
    "--no-browser",
    "remote",
    is_flag=True,
    help="Open no browser here; print the SSH tunnel for the computer that has one. The default in an SSH session.",
)
def lab(folder, remote) -> None:
    """Open JupyterLab on the workbench: the notebooks in FOLDER, copied there if it is not there yet; without FOLDER
    those of the clone, else copies in simpo-notebooks.
    """
    from .lab import open_lab

    sys.exit(open_lab(Path(folder) if folder else None, remote))


def _table_writer(output):
    """A function that writes a DataFrame to `output`; the name is checked now, before hours of scoring."""
    path = Path(output) if output else None
    if path and path.suffix not in (".csv", ".parquet", ".jsonl"):
        raise _WrongConfig(f"--output {output!r}: the name must end with .csv, .jsonl or .parquet.")
    if path and not path.absolute().parent.is_dir():
        raise _WrongConfig(f"--output {output!r}: there is no folder {str(path.parent)!r}.")

    def write(table):
        try:
            if path and path.suffix == ".csv":
                table.to_csv(path, index=False)
            elif path and path.suffix == ".jsonl":
                table.to_json(path, orient="records", lines=True, force_ascii=False)
            elif path:
                mixed = {name: table[name].map(str) for name in table.columns if table[name].map(type).nunique() > 1}
                table.assign(**mixed).to_parquet(path, index=False)
        except (OSError, ValueError) as error:
            raise WorkbenchError(f"{output!r} cannot be written: {first_line(error)}.") from None

    return write


if __name__ == "__main__":
    main()
