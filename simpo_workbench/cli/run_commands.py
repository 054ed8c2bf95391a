"""Commands for runs that live in processes of their own: what is asked of them, their queue, new runs out of old
ones.
"""

from __future__ import annotations

import click

from .options import SettingsCommand, changes_of, with_settings

_root = click.option("--root", default="runs", show_default=True, help="Folder that holds the runs.")
_WAIT_S = 600.0


def add_to(group: click.Group):
    """Give a command group the commands of this file."""
    for command in (resume, stop, pause, unpause, suspend, save, evaluate, change, stack, clone, queue, move):
        group.add_command(command)


@click.command()
@click.argument("name")
@_root
def resume(name, root):
    """Go on with an ended, suspended or paused run, from its newest valid checkpoint, in a process of its own."""
    from ..runs.launch import resume as resume_run

    run = resume_run(name, root)
    click.echo(f"{run.name} goes on in {run.path}. Watch it: simpo-workbench show {run.name} --root {root}")


@click.command()
@click.argument("name")
@click.option(
    "--patience",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Wait so long for it; then send SIGTERM, and 30 s later kill it.",
)
@_root
def stop(name, patience, root):
    """Ask a run to stop after its next step, with adapter and checkpoint saved; a waiting one leaves the queue."""
    from ..runs.run import attach

    run = attach(name, root)
    queued, request = run.status.state == "queued", run.stop(patience)
    if queued:
        request.wait(_WAIT_S)
    click.echo(f"Asked {name} to stop after its next step." if patience is None and not queued else run.status.message)


def _asks(kind, sentence):
    @click.argument("name")
    @_root
    def command(name, root):
        from ..runs.run import attach

        run = attach(name, root)
        queued, request = run.status.state == "queued", getattr(run, kind)()
        click.echo(
            f"{name} waits for its device: it is done after its first step." if queued else request.wait(_WAIT_S).text
        )

    command.__doc__ = sentence
    return click.command(kind)(command)


pause = _asks("pause", "Let a run wait after its next step.")
unpause = _asks("unpause", "Let a paused run go on.")
suspend = _asks("suspend", "Save a checkpoint, end the run's process and so free its memory; `resume` goes on.")
save = _asks("save", "Save a checkpoint after the run's next step.")
evaluate = _asks("evaluate", "Evaluate after the run's next step.")


@click.command("set")
@click.argument("name")
@click.option("--learning-rate-scale", type=float, help="Times the configured learning rate.")
@click.option("--beta", type=float, help="β.")
@click.option("--gamma-beta-ratio", type=float, help="γ/β, nats per token.")
@click.option("--prompt", "prompts", multiple=True, help="Sample prompt; give it once for each.")
@_root
def change(name, root, prompts, **changes):
    """Change settings of a run that trains, after its next step."""
    from ..runs.run import attach

    wanted = {key: value for key, value in {**changes, "prompts": list(prompts) or None}.items() if value is not None}
    if not wanted:
        raise click.UsageError("Say what to change, such as --learning-rate-scale 0.5.")
    click.echo(attach(name, root).set(**wanted).wait(_WAIT_S).text)


@click.command()
@click.argument("name")
@_root
def stack(name, root):
    """Show where every thread of a run's process stands now, for a run that seems to hang."""
    from ..runs.run import attach

    click.echo(attach(name, root).stack())


@click.command(cls=SettingsCommand)
@click.argument("name")
@click.option("--step", type=int, help="Go on from the checkpoint of this step; without it from the start.")
@_root
@with_settings
def clone(name, root, step, **options):
    """Start a new run with the settings of an existing one, and any of them changed."""
    from ..runs.launch import clone as clone_run

    changes = changes_of(options)
    run = clone_run(name, root, step, changes, changes.pop("run.name", None))
    click.echo(f"Started {run.name} in {run.path}. Watch it: simpo-workbench show {run.name} --root {run.path.parent}")


@click.command()
def queue():
    """Show which run has the device and which ones wait for it."""
    from ..runs.device_queue import queue as table
    from .terminal import print_table

    found = table()
    if found.empty:
        click.echo("The device is free, and no run waits for it.")
    else:
        print_table(found)


@click.command()
@click.argument("name")
@click.argument("place", type=click.IntRange(1))
@_root
def move(name, place, root):
    """Put a waiting run at PLACE in the queue; 1 is the next."""
    from ..runs.run import attach

    click.echo(f"{name} is at place {attach(name, root).move_to(place)} now.")
