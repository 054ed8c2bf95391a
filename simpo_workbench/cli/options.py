"""Options that several commands share, among them one per setting of the configuration, generated from its fields."""

from __future__ import annotations

from collections.abc import Callable

import click

from ..config.run_config import RUNS_ROOT, settings

root_option = click.option("--root", default=RUNS_ROOT, show_default=True, help="Folder that holds the runs.")


class SettingsCommand(click.Command):
    """A command whose help lists the many options of the configuration under a heading of their own."""

    def format_options(self, context, formatter) -> None:
        own, config = [], []
        for parameter in self.get_params(context):
            record = parameter.get_help_record(context)
            if record:
                (config if "." in (parameter.opts or [""])[0] else own).append(record)
        for title, records in (("Options", own), ("Configuration", config)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def with_settings(function) -> Callable:
    """The function with one option per setting of the configuration; `changes_of` reads those that are given."""
    sentences = {}
    for info in settings():
        sentences[info.path] = info.sentence
        if info.path == "loss.gamma_beta_ratio":
            sentences["loss.gamma"] = "γ instead of γ/β, in reward units: divided by the β that is given with it."
    for path, sentence in reversed(sentences.items()):
        option = click.option(f"--{path}", path.replace(".", "__"), metavar="VALUE", default=None, help=sentence)
        function = option(function)
    return function


def changes_of(options: dict) -> dict[str, str]:
    """{"section.field": text} of the options of `with_settings` that were given."""
    return {name.replace("__", "."): value for name, value in options.items() if value is not None}
