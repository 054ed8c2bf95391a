"""Commands for runs that live in processes of their own: requests to them, their queue, and clones of them."""

from __future__ import annotations

import click

from .options import SettingsCommand, changes_of, root_option, with_settings

_WAIT_S = 600.0


def add_to(group: click.Group) -> None:
    """Add the commands of this file to a command group."""
    requests = (stop, pause, unpause, suspend, save, evaluate, change, dump_stack)
    for command in (resume, *requests, clone, queue, move, verify):
        group.add_command(command)


@click.command()
@click.argument("name")
@root_option
def resume(name, root) -> None:
    """Continue an ended, suspended or paused run from its newest valid checkpoint, in a process of its own."""
    from ..runs.launch import resume as resume_run

    run = resume_run(name, root)
    click.echo(f"{run.name} goes on in {run.path}. Watch it: simpo-workbench show {run.name} --root {root}")


@click.command()
@click.argument("name")
@click.option(
    "--patience",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Wait this long for it; then send SIGTERM, and 30 s later kill it.",
)
@root_option
def stop(name, patience, root) -> None:
    """Ask a run to stop after its next step, with adapter and checkpoint saved; a waiting one leaves the queue."""
    from ..runs.run import attach

    run = attach(name, root)
    queued, request = run.status.state == "queued", run.stop(patience)
    if queued:
        request.wait(_WAIT_S)
    click.echo(f"Asked {name} to stop after its next step." if patience is None and not queued else run.status.message)


def _request_command(kind, sentence):
    @click.argument("name")
    @root_option
    def command(name, root):
        from ..runs.run import attach

        click.echo(getattr(attach(name, root), kind)().first_word(_WAIT_S))

    command.__doc__ = sentence
    return click.command(kind)(command)


pause = _request_command("pause", "Let a run wait after its next step.")
unpause = _request_command("unpause", "Let a paused run go on.")
suspend = _request_command(
    "suspend", "Save a checkpoint, end the run's process and so free its memory; `resume` goes on."
)
save = _request_command("save", "Save a checkpoint after the run's next step.")
evaluate = _request_command("evaluate", "Evaluate after the run's next step.")


@click.command("set")
@click.argument("name")
@click.option("--learning-rate-scale", type=float, help="Times the configured learning rate.")
@click.option("--learning-rate", type=float, help="In place of the configured learning rate, with its schedule.")
@click.option("--beta", type=float, help="β; γ/β stays as it is unless one of the next two is given.")
@click.option("--gamma-beta-ratio", type=float, help="γ/β, nats per token.")
@click.option("--gamma", type=float, help="γ instead of γ/β, in reward units: divided by the β that is given with it.")
@click.option("--prompt", "prompts", multiple=True, help="Sample prompt; give it once for each.")
@root_option
def change(name, root, prompts, **changes) -> None:
    """Change settings of a run that trains, after its next step."""
    from ..runs.run import attach

    wanted = {key: value for key, value in {**changes, "prompts": list(prompts) or None}.items() if value is not None}
    if not wanted:
        raise click.UsageError("Say what to change, such as --learning-rate-scale 0.5.")
    click.echo(attach(name, root).set(**wanted).first_word(_WAIT_S))


@click.command("dump-stack")
@click.argument("name")
@root_option
def dump_stack(name, root) -> None:
    """Show the stack of every thread of a run's process, for a run that seems to hang."""
    from ..runs.run import attach

    click.echo(attach(name, root).dump_stack())


@click.command(cls=SettingsCommand)
@click.argument("name")
@click.option("--step", type=int, help="Go on from the checkpoint of this step; without it from the start.")
@root_option
@with_settings
def clone(name, root, step, **options) -> None:
    """Start a new run with the settings of an existing one, and any of them changed."""
    from ..runs.launch import clone as clone_run

    changes = changes_of(options)
    run = clone_run(name, root, step, changes, changes.pop("run.name", None))
    click.echo(f"Started {run.name} in {run.path}. Watch it: simpo-workbench show {run.name} --root {run.path.parent}")


@click.command()
def queue() -> None:
    """Show which run has the device and which ones wait for it."""
    from ..runs.device_queue import list_queue
    from .terminal import print_table

    table = list_queue()
    if table.empty:
        click.echo("The device is free, and no run waits for it.")
    else:
        print_table(table)


@click.command()
@click.argument("name")
@click.argument("place", type=click.IntRange(1))
@root_option
def move(name, place, root) -> None:
    """Put a waiting run at PLACE in the queue; 1 is the next."""
    from ..runs.run import attach

    click.echo(f"{name} is at place {attach(name, root).move_to(place)} now.")


@click.command()
@click.argument("name")
@click.option("--full", is_flag=True, help="Read all of the base model's weights, not only sampled pages.")
@root_option
@click.pass_context
def verify(context, name, full, root) -> None:
    """Say of every file of a run whether it is whole, damaged, lost or rebuilt.

    The exit status is 1 where one is damaged or lost.
    """
    from ..runs.verify import BAD
    from ..runs.verify import verify as verify_run
    from .terminal import print_table

    table = verify_run(name, root, full)
    print_table(table)
    click.echo(table.attrs["report"])
    if table["state"].isin(BAD).any():
        context.exit(1)
