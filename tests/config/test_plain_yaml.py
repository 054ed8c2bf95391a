"""What a user would lose: a setting that the quick reader reads otherwise than YAML does."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import simpo_workbench as wb
from simpo_workbench.config import plain_yaml, yaml_text
from simpo_workbench.config.plain_yaml import read_plain_yaml


def read(text):
    return read_plain_yaml(text, yaml_text._read_section)


def same(found, expected):
    """Equal, with equal types: 1, 1.0 and True are three values."""
    return repr(found) == repr(expected)


SCALARS = st.sampled_from(
    [
        *("1", "-1", "0", "007", "0o17", "0x1F", "1_000", "1.5", "1.", ".5", "1e3", "1e-05", "5e-7", "1.0e+20", "+1"),
        *("null", "Null", "~", "true", "True", "yes", "no", "on", "y", ".inf", "-.inf", ".nan", "2026-11-27", "12:30"),
        *("word", "a b", "/tmp/x", "a/b-c_d.e", "a:b", "a: b", "a #b", "a#b", "#b", '"quoted"', "'single'", "- a"),
        *("{}", "[]", "{a: 1}", "[1, 2]", "|", ">", "&a b", "*a", "!!str a", "a ", "Straße", "99999999999999999999"),
    ]
)
LINES = st.one_of(
    st.sampled_from(
        ["a:", "b:", "", "# comment", "  # comment", "  deeper:", "    x: 1", "  - item", "---", "...", "  '"]
    ),
    st.builds(lambda name, value: f"  {name}: {value}", st.sampled_from(["x", "y", "z"]), SCALARS),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(LINES, max_size=8))
@example(["a:", '  x: "begins', "b:", '  y: ends"'])
@example(["a:", "  x: |", "    text", "b:", "  y: 1"])
@example(["a:", "  x: plain", "    # no comment?", "    more"])
@example(["a:", "  x: 'one", "  # still text", "  y: 1'"])
def test_it_reads_what_yaml_reads_or_nothing(lines):
    text = "\n".join(lines) + "\n"
    found = read(text)
    if found is not None:
        assert same(found, yaml_text._read_any(text, "text")), text


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss.beta": 10, "training.learning_rate": 5e-7, "run.name": "x"},
        {"generation.prompts": ["What is: a 'b'?", "# no comment", "two\nlines"], "data.train": "a file.jsonl"},
        {"data.chat_template": "{% for m in messages %}\n{{ m }}\n{% endfor %}\n", "run.name": "null-1"},
    ],
)
def test_a_configuration_is_read_as_by_yaml(changes, monkeypatch):
    config = wb.RunConfig().with_changes(changes)
    text = config.to_yaml()
    assert same(read(text), yaml_text._read_any(text, "text"))
    assert wb.RunConfig.from_yaml_text(text) == config


def test_the_quick_reader_is_the_one_that_reads_configurations(monkeypatch):
    """Else a list of 500 runs takes seven seconds instead of one."""
    plain_yaml._section.cache_clear()
    text = wb.RunConfig().to_yaml()
    monkeypatch.setattr(yaml_text, "YAML", None)  # the library is not asked at all
    assert yaml_text.read_yaml(text, "text")["loss"]["beta"] == wb.RunConfig().loss.beta


def test_a_value_that_is_changed_does_not_change_the_next_one_that_is_read():
    text = "a:\n  x: []\n"
    read(text)["a"]["x"].append(1)
    assert read(text) == {"a": {"x": []}}
