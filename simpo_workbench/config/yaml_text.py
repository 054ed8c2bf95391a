"""YAML in and out: YAML 1.2 (so that 5e-7 is a number), no aliases, no tags, errors with line and column."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.tokens import (
    AliasToken,
    AnchorToken,
    BlockEndToken,
    BlockMappingStartToken,
    BlockSequenceStartToken,
    FlowMappingEndToken,
    FlowMappingStartToken,
    FlowSequenceEndToken,
    FlowSequenceStartToken,
    TagToken,
)

from ..base.errors import WorkbenchError
from .plain_yaml import read_plain_yaml
from .schema import SettingInfo

#: No configuration is nested deeper, and the library's time grows with the square of the depth.
DEEPEST = 30
#: Characters; a configuration has about ten thousand.
LARGEST = 1_000_000
#: Marks, keys and values; a configuration has some three hundred.
MOST_TOKENS = 100_000
_OPENING = (BlockMappingStartToken, BlockSequenceStartToken, FlowMappingStartToken, FlowSequenceStartToken)
_CLOSING = (BlockEndToken, FlowMappingEndToken, FlowSequenceEndToken)

HEADER = "SimPO Workbench run configuration. Train it with: simpo-workbench train THIS_FILE"


class _Representer(RoundTripRepresenter):
    """Writes None as `null`, and text with a next-line character (U+0085) escaped, else it would be read as a space."""

    def null(self, _):
        return self.represent_scalar("tag:yaml.org,2002:null", "null")

    def text(self, value):
        return self.represent_scalar("tag:yaml.org,2002:str", value, style='"' if "\x85" in value else None)


_Representer.add_representer(type(None), _Representer.null)
_Representer.add_representer(str, _Representer.text)


def read_yaml(text: str, source: str) -> Any:
    """The value in a YAML text. Errors: WorkbenchError with line and column of what cannot be read."""
    if len(text) > LARGEST:
        raise WorkbenchError(
            f"{source} has more than {LARGEST:,} characters: no configuration is that long. Put long texts into files"
            " of their own."
        )
    plain = read_plain_yaml(text, _read_section)
    return _read_any(text, source) if plain is None else plain


def _read_section(part):
    return _read_any(part, "a section")


def _read_any(text, source):
    try:
        depth = 0
        for number, token in enumerate(YAML(typ="safe", pure=True).scan(text)):
            line = token.start_mark.line + 1
            if number > MOST_TOKENS:
                raise WorkbenchError(
                    f"{source}, line {line}: more than {MOST_TOKENS:,} keys, values and marks up to here; no"
                    " configuration has so many."
                )
            depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
            if depth > DEEPEST:
                raise WorkbenchError(
                    f"{source}, line {line}: brackets and indents are nested more than {DEEPEST} deep; close what is"
                    " open."
                )
            if isinstance(token, (AliasToken, AnchorToken, TagToken)):
                raise WorkbenchError(
                    f"{source}, line {line}: anchors (&), aliases (*) and tags (!) are not used here; write the value"
                    " itself, or in quotes."
                )
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise WorkbenchError(
            f"{source}{where}: this is not YAML ({(error.problem or error.context or 'it cannot be read').strip()})."
        ) from None
    except (YAMLError, TypeError, ValueError) as error:  # the library lets TypeError out for a key that cannot be one
        raise WorkbenchError(
            f"{source}: this is not YAML ({(str(error) or 'it cannot be read').splitlines()[0]})."
        ) from None


def write_yaml(values: dict[str, dict[str, Any]], infos: list[SettingInfo], titles: dict[str, str]) -> str:
    """The YAML text of all sections, with each setting's help as a comment above it."""
    yaml = YAML()
    yaml.width = 4096
    yaml.Representer = _Representer
    yaml.indent(mapping=2, sequence=4, offset=2)
    root = CommentedMap()
    root.yaml_set_start_comment(HEADER + "\n")
    for name, section in values.items():
        node = CommentedMap(section)
        for info in infos:
            if info.section == name:
                node.yaml_set_comment_before_after_key(info.name, before=info.sentence, indent=2)
        root[name] = node
        root.yaml_set_comment_before_after_key(name, before="\n" + titles[name].split("\n")[0])
    stream = io.StringIO()
    yaml.dump(root, stream)
    return stream.getvalue()
