"""YAML in and out: a number read as text, or a tag that runs code, must never reach a run."""

import io
import json

import pytest
from ruamel.yaml import YAML

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.config.run_config import RunConfig
from simpo_workbench.config.yaml_text import HEADER, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 5e-7", {"a": 5e-7}),
        ("a: 1e5", {"a": 1e5}),
        ("a: yes", {"a": "yes"}),
        ("a: 012", {"a": 12}),
        ("a: 0o12", {"a": 10}),
        ("a: true", {"a": True}),
        ("a: ~", {"a": None}),
        ("a: |\n  two\n  lines", {"a": "two\nlines"}),
        ("[a, 'b']", ["a", "b"]),
        ("", None),
        ("[" * 30 + "]" * 30, json.loads("[" * 30 + "]" * 30)),
        ("a: 'R&D * !'", {"a": "R&D * !"}),
        ("a: R&D", {"a": "R&D"}),
    ],
)
def test_values_are_read_as_yaml_1_2(text, value):
    assert read_yaml(text, "x.yaml") == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: [", "x.yaml, line 2, column"),
        ("a: 1\na: 2", "x.yaml, line 2, column 1: this is not YAML (found duplicate key"),
        ("a: 1\n\tb: 2", "x.yaml, line 2, column 1"),
        ("a: &b 1", "x.yaml, line 1: anchors"),
        ("a: 1\nb: *a", "x.yaml, line 2: anchors"),
        ("a: !!python/name:os.system x", "x.yaml, line 1: anchors"),
        ("\0", "x.yaml: this is not YAML"),
        ("{" * 5000, "x.yaml, line 1: brackets and indents are nested more than 30 deep"),
        ("a:\n" + "".join(" " * i + "b:\n" for i in range(1, 40)), "x.yaml, line 31: brackets and indents are nested"),
        ("a: 2024-99-99", "x.yaml: this is not YAML"),
        ("? - ? x", "x.yaml: this is not YAML"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(text, said):
    with pytest.raises(WorkbenchError) as error:
        read_yaml(text, "x.yaml")
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_a_file_that_repeats_itself_a_billion_times_is_refused_at_once():
    lines = [
        f"{now}: &{now} [*{before}, *{before}, *{before}, *{before}]\n"
        for before, now in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    bomb = "a: &a [x, x, x, x]\n" + "".join(lines)
    with pytest.raises(WorkbenchError, match="line 1: anchors"):
        read_yaml(bomb, "x.yaml")


def test_the_text_reads_from_top_to_bottom():
    text = RunConfig().to_yaml()
    assert text.startswith(f"# {HEADER}\n")
    assert [line for line in text.splitlines() if line and line[0] not in " #"] == [
        "model:",
        "data:",
        "loss:",
        "lora:",
        "training:",
        "generation:",
        "run:",
    ]
    assert (
        "# The objective. γ (gamma) instead of γ/β is divided by the β given with it; a change of β alone keeps γ/β."
        "\nloss:\n" in text
    )


def test_writing_a_configuration_changes_no_other_yaml_of_the_process():
    RunConfig().to_yaml()
    stream = io.StringIO()
    YAML().dump({"a": None}, stream)
    assert stream.getvalue() == "a:\n"
