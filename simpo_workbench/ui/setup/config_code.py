"""A configuration as Python, as a command and as YAML: its differences from a preset, as code to copy and run."""

from __future__ import annotations

import shlex
from typing import Any

from ...base.errors import WorkbenchError
from ...config.presets import preset
from ...config.run_config import RunConfig
from ..parts.fields import all_fields, flow_yaml, number_text
from ..parts.html import Markup, html, joined


def value_at(config: RunConfig, path: str) -> Any:
    """The value of "section.name"."""
    section, _, name = path.partition(".")
    return getattr(getattr(config, section), name)


def differences(config: RunConfig, base: RunConfig) -> dict[str, Any]:
    """path -> value of every setting that differs from `base`, in the order of the configuration."""
    return {path: value_at(config, path) for path in all_fields() if value_at(config, path) != value_at(base, path)}


def as_python(config: RunConfig, base: str) -> str:
    """Python that makes this configuration from the preset named `base`."""
    changes = differences(config, preset(base))
    lines = [f'        "{path}": {_python(value)},' for path, value in changes.items()]
    change = "\n".join([".with_changes(", "    {", *lines, "    }", ")"]) if changes else ""
    note = _note_unless_exact(config, base, changes)
    return f'import simpo_workbench as wb\n\nconfig = wb.preset("{base}"){change}\n{note}'


def as_command(config: RunConfig, base: str) -> str:
    """The shell command that trains this configuration, with values quoted for the shell."""
    changes = {path: _option(value) for path, value in differences(config, preset(base)).items()}
    options = [part for path, text in changes.items() for part in (f"--{path}", text)]
    command = shlex.join(["simpo-workbench", "train", "--preset", base, *options])
    return f"{command}\n{_note_unless_exact(config, base, changes)}"


def as_marked_yaml(config: RunConfig, base: str) -> Markup:
    """The YAML with its comments in a pale colour, and settings that differ from the preset marked."""
    changed, section, lines = differences(config, preset(base)), "", []
    for line in config.to_yaml().split("\n"):
        name, colon, _ = line.strip().partition(":")
        if colon and line == line.lstrip():
            section = name
        if line.startswith(("#", "  #")):
            line = html('<span class="swb-muted">{}</span>', line)
        elif colon and line.startswith("  ") and line[2] not in " -" and f"{section}.{name}" in changed:
            line = html("<ins>{}</ins>", line)
        lines.append(line)
    return joined(lines, "\n")


def _python(value):
    if isinstance(value, float):
        return number_text(value)
    text = repr(value)
    return text.replace("'", '"') if isinstance(value, str) and '"' not in text else text


def _option(value):
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    return number_text(value) if isinstance(value, int | float) else flow_yaml(value)


def _note_unless_exact(config, base, changes):
    """A comment if the changes do not give this configuration: a text such as "none" is read as no value in them."""
    try:
        exact = preset(base).with_changes(changes) == config
    except WorkbenchError:
        exact = False
    if exact:
        return ""
    return "# Not exact: a text such as 'none' or '' is read as no value here. Save the YAML and use that file.\n"
