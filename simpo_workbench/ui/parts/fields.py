"""One control per setting, made from its type, bounds and help: values to texts and back, and the widget itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import anywidget
import traitlets

from ...base.errors import WorkbenchError
from ...config.run_config import RunConfig, settings
from ...config.schema import SettingInfo
from ...config.yaml_text import read_yaml
from .following import LOCK

_MANTISSAS = (1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8, 2, 2.2, 2.5, 2.8, 3, 3.5, 4, 4.5, 5, 5.5, 6, 7, 8, 9)
#: The stops of the two sliders: about evenly spaced on a log scale for β, evenly for γ/β. The number field beside a
#: slider takes other values.
STOPS = {
    "loss.beta": [
        round(mantissa * power, 2) for power in (0.1, 1, 10) for mantissa in _MANTISSAS if mantissa * power <= 20
    ],
    "loss.gamma_beta_ratio": [round(0.05 * i, 2) for i in range(41)],
}
_SYMBOLS = {"loss.beta": "β", "loss.gamma_beta_ratio": "γ/β"}
_UNSAFE_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True)
class Field:
    """A setting and its control.

    kind: switch, choice, number, slider, text, lines (one text per line), words (a word, or names with commas) or yaml.
    """

    info: SettingInfo
    kind: str

    def text_of(self, value: Any) -> str | bool:
        """The value as the control shows it; `read` gives it back."""
        if self.kind == "switch":
            return value
        if value is None:
            return ""
        if self.kind == "lines":
            texts = list(map(_line_of, value))
            return self._simplest("\n".join(texts), "\n".join(f"- {flow_yaml(text)}" for text in texts), texts)
        if self.kind == "words":
            return value if isinstance(value, str) else self._simplest(", ".join(value), flow_yaml(value), value)
        if self.kind == "yaml":
            items = value.items()
            plain = "\n".join(f"{key}: {item if isinstance(item, str) else flow_yaml(item)}" for key, item in items)
            return self._simplest(
                plain, "\n".join(f"{flow_yaml(key)}: {flow_yaml(item)}" for key, item in items), value
            )
        return value if isinstance(value, str) else number_text(value)

    def read(self, shown: str | bool, known: Iterable = ()) -> Any:
        """The value of a control, not yet checked against type and bounds.

        known: items of a list that are more than the lines which stand for them, such as prompts with checks; a line
        that is one of theirs gives the whole item.
        Errors: WorkbenchError where the text should be YAML and is not.
        """
        if self.kind in ("switch", "choice"):
            return shown
        text = shown.strip()
        if self.info.optional and not text:
            return None
        if self.kind == "lines":
            if text.startswith("- "):
                lines = read_yaml(text, self.info.path)
            else:
                lines = [line.strip() for line in text.split("\n") if line.strip()]
            whole = {_line_of(item): item for item in known if isinstance(item, dict)}
            return [whole.get(line, line) if isinstance(line, str) else line for line in lines]
        if self.kind == "words" and text not in self.info.choices:
            if text.startswith("["):
                return read_yaml(text, self.info.path)
            return [name.strip() for name in text.split(",") if name.strip()]
        if self.kind == "yaml":
            return read_yaml(text, self.info.path) if text else {}
        return text

    def _simplest(self, plain, quoted, value):
        try:
            return plain if self.read(plain) == value else quoted
        except WorkbenchError:
            return quoted

    @property
    def label(self) -> str:
        name = self.info.name.replace("_", " ")
        return _SYMBOLS.get(self.info.path) or (name[0].upper() + name[1:] if len(name) > 1 else name)

    @property
    def hint(self) -> str:
        """Bounds, and how to write the text where that is not obvious."""
        words = " or ".join(self.info.choices)
        ways = {
            "number": f"a number, or {words}" if words else "",
            "lines": 'one per line; for texts of several lines a YAML list, each item behind "- "; a line that is not'
            " changed keeps its check",
            "words": f"{words}, or names with commas between them",
            "yaml": "one “name: value” per line",
        }
        bounds = self.info.bounds.replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")
        return "; ".join(
            part for part in (bounds, ways.get(self.kind), "empty: none" if self.info.optional else "") if part
        )

    def described(self) -> dict:
        """The data that the page needs to draw the control."""
        info = self.info
        return {
            "path": info.path,
            "kind": self.kind,
            "label": self.label,
            "help": info.help,
            "hint": self.hint,
            "unit": info.unit,
            "choices": list(info.choices),
            "rare": info.rare,
            "stops": STOPS.get(info.path, []),
        }


def _line_of(item):
    """The line that stands for a sample prompt, which may be a mapping with a check."""
    return item["prompt"] if isinstance(item, dict) else item


@cache
def all_fields() -> dict[str, Field]:
    """Every setting's Field by its path, in the order of the configuration."""
    return {info.path: Field(info, _kind(info)) for info in settings()}


@cache
def described_sections(without: str = "") -> list[dict]:
    """The sections of the configuration as the page needs them; the setting at the path `without` is left out."""
    return [
        {
            "title": "LoRA" if name == "lora" else name.capitalize(),
            "sentence": part.annotation.__doc__.split("\n")[0].split(". ")[0].rstrip(".") + ".",
            "fields": [
                field.described()
                for path, field in all_fields().items()
                if field.info.section == name and path != without
            ],
        }
        for name, part in RunConfig.model_fields.items()
    ]


def number_text(value: float) -> str:
    """A number as people type it, without rounding: "2", "0.05", "1.2e-4"."""
    if isinstance(value, float) and 0 < abs(value) < 1e-3:
        return f"{Decimal(repr(value)).normalize():e}"
    return repr(value).removesuffix(".0")


def flow_yaml(value: Any) -> str:
    """A value as one line of YAML: JSON, with characters escaped that YAML takes for line ends or refuses."""
    return _UNSAFE_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False))


def _kind(info):
    if info.path in STOPS:
        return "slider"
    annotation = RunConfig.model_fields[info.section].annotation.model_fields[info.name].annotation
    arms = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    origins = [get_origin(arm) for arm in arms]
    if bool in arms:
        return "switch"
    if origins == [Literal]:
        return "choice"
    if dict in origins:
        return "yaml"
    if list in origins:
        return "words" if info.choices else "lines"
    return "number" if int in arms or float in arms else "text"


class Fields(anywidget.AnyWidget):
    """The inputs of all settings in one widget: sixty widgets would take a second to appear.

    values: path -> what the control shows. remarks: path -> {changed, problem, warning, note}, shown at the control.
    without: a path that gets no control; `paths` lists the others.
    """

    _esm = Path(__file__).parent / "fields.js"
    sections = traitlets.List().tag(sync=True)
    values = traitlets.Dict().tag(sync=True)
    remarks = traitlets.Dict().tag(sync=True)

    def __init__(self, without: str = ""):
        super().__init__(sections=described_sections(without))
        self.paths = [field["path"] for section in self.sections for field in section["fields"]]
        self.on_msg(self._heard)

    def say(self, path: str, text: str | bool) -> None:
        """Set one control, as if this were typed there."""
        self.values = {**self.values, path: text}

    def _heard(self, _, message, buffers):
        """Take only the controls that were changed in the page, which may not know yet what was set from Python."""
        typed = {path: text for path, text in message["typed"].items() if path in self.paths}
        with LOCK:
            self.values = {**self.values, **typed}
        self.send({"heard": message["number"], "view": message["view"]})
