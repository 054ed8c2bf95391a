"""The Setup panel: all settings of a RunConfig in a form, and beside it the same as Python, YAML and a command."""

from __future__ import annotations

from pathlib import Path

import ipywidgets
import traitlets

from ...base.errors import WorkbenchError
from ...base.format import counted
from ...config.held_lora import adapter_note, held_lora, same_setting, value_text
from ...config.presets import preset, preset_notes
from ...config.run_config import RunConfig
from ..parts.fields import Fields, all_fields, number_text
from ..parts.html import Html, Markup, html, joined, table
from ..parts.panel import Panel, button, column, enable, row
from .config_code import as_command, as_marked_yaml, as_python, differences, value_at

DEMO = "demo"
_LONGEST_MARK = 40
_VIEWS = {"as Python": as_python, "as YAML": as_marked_yaml, "as command": as_command}


class ConfigForm(Panel):
    """All settings of a run. `config` is the last valid configuration of the form; setting it moves the controls.

    root: folder of the runs if it is fixed: then `run.root` always has this value, is not offered, and counts as no
    change. `base` names the preset from which changes are counted; `problems` lists what is wrong, in sentences.
    """

    title = "Setup"
    config = traitlets.Instance(RunConfig)

    def __init__(self, config: RunConfig | None = None, line: Html | None = None, root: str | None = None):
        super().__init__(line)
        self.root, self.base, self._before = root, DEMO, None
        self._values, self._unread, self._problems = {}, {}, {}
        self._build()
        self._move_to(config or preset(DEMO))
        self.observe(self.guard(self._config_set), "config")

    @property
    def problems(self) -> list[str]:
        """Sentences on what is wrong now; empty while the whole form is valid."""
        return list(self._problems.values())

    def snapshot(self) -> Markup:
        config, base = self.config, self._preset(self.base)
        changes = differences(config, base)
        rows = [
            (path, self._shown(path, value_at(base, path)), self._shown(path, value)) for path, value in changes.items()
        ]
        every = [
            (path, self._shown(path, value_at(config, path)), field.info.unit) for path, field in all_fields().items()
        ]
        changed = f"changed: {len(changes)}" if changes else "unchanged"
        every_table = table(["setting", "value", "unit"], every)
        return joined(
            [
                html("<p><b>Preset {}</b>, {}. {}</p>", self.base, changed, preset_notes()[self.base]),
                table(["setting", "preset", "here"], rows, "Changed settings") if rows else "",
                html("<p>{}</p>", _gamma(config)),
                html("<p>{}</p>", note) if (note := adapter_note(config, held_lora(config))) else "",
                _notice("attention", "Worth a second look", config.warnings()),
                html("<pre>{}</pre>", as_python(config, self.base)),
                html("<details><summary>All settings</summary>{}</details>", every_table),
            ]
        )

    # the controls

    def _build(self):
        names = list(preset_notes())
        self.presets = ipywidgets.Dropdown(
            options=names,
            description="Preset",
            tooltip="Start from a named configuration",
            layout=ipywidgets.Layout(width="auto"),
        )
        self.presets.style.description_width = "initial"
        self.count, self.note = Html(), Html()
        self.back = button("Back to the preset", self.guard(self._back), icon="undo")
        self.undo = button("Undo", self.guard(self._undo), icon="reply")
        self.path = ipywidgets.Text(
            description="YAML file",
            placeholder="config.yaml",
            tooltip="File to load the settings from, or to save them in",
            continuous_update=False,  # else a click may come before the last characters
        )
        self.path.style.description_width = "initial"
        self.load = button("Load", self.guard(self._load), icon="folder-open")
        self.save = button("Save", self.guard(self._save), icon="save")
        self.fields = Fields() if self.root is None else Fields(without="run.root")
        self.views = ipywidgets.ToggleButtons(options=list(_VIEWS), style={"button_width": "auto"})
        self.code, self.notices = Html(), Html()
        self.code.add_class("swb-code")
        self.presets.observe(self.guard(self._preset_chosen), "value")
        self.path.observe(self.guard(lambda _: self._offer_overwrite(False)), "value")
        self.fields.observe(self.guard(self._typed), "values")
        self.views.observe(self.guard(lambda _: self._show_code()), "value")
        beside = column(self.views, self.code, self.notices, classes="swb-beside")
        top = row(
            row(self.presets, self.count, self.back, self.undo),
            row(self.path, self.load, self.save),
            classes="swb-spread",
        )
        self.compose(top, self.note, row(self.fields, beside, classes="swb-top swb-form"))

    # from a configuration to the controls

    def _config_set(self, change):
        if not self.filling:
            self._move_to(change["new"])

    @traitlets.validate("config")
    def _same_again(self, proposal):
        config = self._with_root(proposal["value"])
        if (
            not self.filling and self._problems and config == self.config
        ):  # no change is reported, but the controls differ
            self._move_to(config)
        return config

    def _move_to(self, config, base=None):
        """Show this configuration. A preset that equals it becomes the base, first of all `base` itself."""
        config, likely = self._with_root(config), [base or self.base, *preset_notes()]
        self.base = next((name for name in likely if self._preset(name) == config), likely[0])
        self._values = {path: value_at(config, path) for path in all_fields()}
        # for good, so that a line which is changed and typed again has its check again
        self._checked_prompts = [item for item in config.generation.prompts if isinstance(item, dict)]
        self._unread = {}
        with self.quietly():
            self.presets.value = self.base
            self.fields.values = {path: all_fields()[path].text_of(self._values[path]) for path in self.fields.paths}
        self._settle()

    # from the controls to a configuration

    def _typed(self, change):
        if self.filling:
            return
        for path in self.fields.paths:
            shown = change["new"].get(path)
            if shown == change["old"].get(path):
                continue  # an untouched value stays exactly as it was
            self._unread.pop(path, None)
            try:
                self._values[path] = all_fields()[path].read(shown, self._checked_prompts)
            except WorkbenchError as error:
                self._unread[path] = str(error)
        was_wrong = bool(self._problems)
        self._settle()
        if self._problems:
            more = f" And {counted(len(self._problems) - 1, 'more setting')}." if len(self._problems) > 1 else ""
            self.say(self.problems[0] + more, "error")
        elif was_wrong:
            self.say("All settings are valid.", "good")
        else:
            self.say("")

    def _settle(self):
        """Check the controls' values, take them as `config` if all are valid, and show the consequences."""
        self._problems, sections = dict(self._unread), {}
        for name, part in RunConfig.model_fields.items():
            values = {
                path.partition(".")[2]: value
                for path, value in self._values.items()
                if path.startswith(f"{name}.") and path not in self._unread
            }
            try:
                sections[name] = part.annotation.model_validate(values)
            except WorkbenchError as error:
                for sentence in str(error).split("\n"):
                    path = sentence.split(" ")[0]
                    self._problems.setdefault(path if path in self._values else name, sentence)
        if not self._problems:
            with self.quietly():
                self.config = RunConfig(**sections)
        self._show_remarks(sections)
        self._show_code()
        self._offer_overwrite(False)

    # the consequences

    def _show_remarks(self, sections):
        base, remarks, warnings = self._preset(self.base), {}, self.config.warnings()
        for path in all_fields():
            section, _, name = path.partition(".")
            before = value_at(base, path)
            now = self._values[path]
            if section in sections and path not in self._unread:
                now = getattr(sections[section], name)
            changed = path in self._problems or now != before
            remarks[path] = {
                "changed": f"changed, was {self._shown(path, before)}" if changed else "",
                "problem": self._problems.get(path, ""),
                "warning": " ".join(warning for warning in warnings if warning.startswith(f"{path} ")),
            }
        remarks["loss.gamma_beta_ratio"]["note"] = (
            _gamma(sections["loss"]) if "loss" in sections else "γ follows when β and γ/β are valid."
        )
        for path, note in self._adapter_notes(sections).items():
            remarks[path]["note"] = note
        self.fields.remarks = {
            path: {key: text for key, text in texts.items() if text}
            for path, texts in remarks.items()
            if any(texts.values())
        }
        count = sum(bool(texts["changed"]) for texts in remarks.values())
        self.count.value = html('<span role="status" class="swb-count">changed from preset: <b>{}</b></span>', count)
        self.note.value = html('<span class="swb-help">{}</span>', preset_notes()[self.base])
        # Undo first: when Back takes the keyboard's focus away from itself, the focus moves to the next enabled button.
        enable(
            self.undo,
            "" if self._before else "There is nothing to undo.",
            "Back to the changed settings that a preset or a file replaced",
        )
        enable(
            self.back, "" if count else "Nothing is changed.", f"Set all settings as the preset {self.base} has them"
        )
        heading = f"{counted(len(self._problems), 'setting')} to correct; the code above is the last valid form"
        wrong = _notice("failed", heading, self.problems)
        self.notices.value = joined([wrong, _notice("attention", "Worth a second look", warnings)])

    def _adapter_notes(self, sections):
        """path -> what the adapter of model.adapter has in place of a setting of `lora`."""
        if not self._values["model.adapter"] or not {"model", "lora"} <= sections.keys():
            return {}
        config = self.config.model_copy(update={name: sections[name] for name in ("model", "lora")})
        held = held_lora(config)
        if held is None:
            return {"model.adapter": "There is no adapter in this folder that can be read."}
        notes = {"model.adapter": adapter_note(config, held)}
        for name, value in config.lora.model_dump().items():
            words = "as here" if same_setting(value, held[name]) else f"{value_text(held[name])}, not what is here"
            notes[f"lora.{name}"] = f"The adapter's own holds: {words}."
        return notes

    def _show_code(self):
        view = self.views.value
        self.code.value = html(
            '<pre tabindex="0" aria-label="{}">{}</pre>', f"The settings {view}", _VIEWS[view](self.config, self.base)
        )

    @staticmethod
    def _shown(path, value):
        if isinstance(value, bool):
            return "on" if value else "off"
        text = all_fields()[path].text_of(value).replace("\n", " ") or "none"
        return text if len(text) <= _LONGEST_MARK else text[: _LONGEST_MARK - 1] + "…"

    # presets

    def _preset(self, name):
        return self._with_root(preset(name))

    def _with_root(self, config):
        if self.root is None:
            return config
        return config.model_copy(update={"run": config.run.model_copy(update={"root": self.root})})

    def _preset_chosen(self, change):
        if not self.filling:
            self._replace(preset(change["new"]), change["new"])
            self.say(f"Preset {self.base}: all settings are as it has them.")

    def _back(self):
        self._replace(preset(self.base), self.base)
        self.say(f"All settings are as the preset {self.base} has them. Undo brings your changes back.")

    def _undo(self):
        if self._before is None:  # a second click, before the button was disabled
            return
        (base, config), self._before = self._before, None
        self._replace(config, base)
        self.say("Your changes are back.")

    def _replace(self, config, base):
        if differences(self.config, self._preset(self.base)):
            self._before = self.base, self.config
        self._move_to(config, base)

    # files

    def _load(self):
        path = self._file()

        def done(config):
            self._replace(config, self.base)
            here = f" Runs are still kept in {self.root!r}." if config.run.root != self.config.run.root else ""
            self.say(f"Loaded {path}.{here}", "good")

        self.later(lambda: RunConfig.from_yaml(path), done)

    def _save(self):
        path, config = self._file(), self.config
        if path.is_file() and not self._overwrites:
            self._offer_overwrite(True)
            self.say(f"The file {path} exists. Click Overwrite to replace it, or give another name.")
            return
        self._offer_overwrite(False)
        self.later(lambda: config.to_yaml(path), lambda _: self.say(f"Saved as {path}.", "good"))

    def _file(self):
        text = self.path.value.strip()
        if not text:
            raise WorkbenchError("No file is named: type a path such as config.yaml beside 'YAML file' first.")
        return Path(text).expanduser()

    def _offer_overwrite(self, offered):
        self._overwrites = offered
        self.save.description = "Overwrite" if offered else "Save"
        (self.save.add_class if offered else self.save.remove_class)("swb-danger")
        why_not = f"{counted(len(self._problems), 'setting')} must be corrected first." if self._problems else ""
        enable(self.save, why_not, "Replace the file" if offered else "Write all settings, with their help as comments")


def _gamma(settings):
    """A sentence with γ, for a RunConfig or its loss section."""
    loss = getattr(settings, "loss", settings)
    if not loss.has_target_margin:
        return f"{loss.kind.upper()} has no target margin: γ/β has no effect."
    beta, ratio = number_text(loss.beta), number_text(loss.gamma_beta_ratio)
    return f"γ = β · γ/β = {beta} · {ratio} = {float(f'{loss.gamma:.4g}'):g}, the target margin in reward units."


def _notice(tone, heading, sentences):
    if not sentences:
        return ""
    return html(
        '<div class="swb-notice swb-{}"><b>{}</b><ul>{}</ul></div>',
        tone,
        heading,
        joined(html("<li>{}</li>", sentence) for sentence in sentences),
    )
