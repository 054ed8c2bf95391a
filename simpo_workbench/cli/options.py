"""The configuration's settings as options of a command: one per setting, generated from the fields, under a heading of
their own.
"""

from __future__ import annotations

import click

from ..config.run_config import settings


class SettingsCommand(click.Command):
    """Folds the many options of the configuration under a heading of their own, section by section."""

    def format_options(self, context, formatter):
        own, config = [], []
        for parameter in self.get_params(context):
            record = parameter.get_help_record(context)
            if record:
                (config if "." in (parameter.opts or [""])[0] else own).append(record)
        for title, records in (("Options", own), ("Configuration", config)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def with_settings(function):
    """One option per setting of the configuration; those given arrive in keyword arguments, as text: see
    `changes_of`.
    """
    paths = [(info.path, info.sentence) for info in settings()]
    paths.insert(
        next(i for i, (path, _) in enumerate(paths) if path == "loss.gamma_beta_ratio") + 1,
        ("loss.gamma", "γ instead of γ/β, in reward units."),
    )
    for path, sentence in reversed(paths):
        function = click.option(f"--{path}", path.replace(".", "__"), metavar="VALUE", default=None, help=sentence)(
            function
        )
    return function


def changes_of(options: dict) -> dict[str, str]:
    """{"section.field": text} of the options that were given."""
    return {name.replace("__", "."): value for name, value in options.items() if value is not None}
