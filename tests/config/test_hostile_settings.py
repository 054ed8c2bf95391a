"""What a user would lose: the kernel, or an hour with a library's traceback, to a configuration made to do harm."""

import pytest
from hostile_inputs import JSON_VALUES, LOAD, within_memory
from hypothesis import example, given, settings
from hypothesis import strategies as st

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.config.run_config import RunConfig
from simpo_workbench.config.yaml_text import read_yaml

pytestmark = pytest.mark.timeout(120)  # so that what hangs fails


@pytest.mark.parametrize("section", ["model", "run", None])
def test_no_configuration_can_allow_code(section):
    """A YAML file that is passed on must not decide for the one who gets it."""
    text = f"{section}:\n  trust_remote_code: true\n" if section else "trust_remote_code: true\n"
    with pytest.raises(WorkbenchError, match="code from a model repository is never run"):
        RunConfig.from_yaml_text(text)


def test_a_yaml_file_that_unfolds_without_bounds_is_refused_in_little_memory(tmp_path):
    """Nine lines that stand for a billion entries."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"] + [
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)
    ]
    (tmp_path / "laughs.yaml").write_text("\n".join(lines))
    code = LOAD.replace("pairs.pairs import load_pairs", "config.run_config import RunConfig").replace(
        "load_pairs(sys.argv[1]).report()", "RunConfig.from_yaml(sys.argv[1])"
    )
    assert "line 1: anchors (&), aliases (*) and tags (!) are not used here" in within_memory(
        400, code, tmp_path / "laughs.yaml"
    )
    with open(tmp_path / "sparse.yaml", "wb") as file:
        file.truncate(50 * 1024**3)  # fifty gigabytes of nothing
    assert "sparse.yaml has more than 1,000,000 characters" in within_memory(400, code, tmp_path / "sparse.yaml")
    assert "/dev/zero has more than 1,000,000 characters" in within_memory(400, code, "/dev/zero")
    (tmp_path / "many.yaml").write_text("a: [" + "x," * 490_000 + "]")
    assert "line 1: more than 100,000 keys, values and marks" in within_memory(400, code, tmp_path / "many.yaml")


ODD_YAML = [
    "a: " + "9" * 5000,
    "a: 0x" + "f" * 100_000,
    "a: 1e999999999",
    "- " * 3000,
    "a: {" * 40,
    "? " * 500,
    "%YAML 1.1\n---\n<<: {a: 1}",
    "a: !!binary x",
    "\ud800",
    "a: \x07",
]


@pytest.mark.parametrize("text", ODD_YAML, ids=range(len(ODD_YAML)))
def test_odd_yaml_is_a_sentence_or_a_value(text):
    """A configuration that somebody edited by hand must never end in a library's traceback."""
    try:
        RunConfig.from_yaml_text(text)
    except WorkbenchError as error:
        assert "Traceback" not in str(error)


YAML_TEXT = st.text(alphabet="model:lossbeta 0123.[]{}-?&*!|>'\"#%@`\n\t\r\x85\u2028~,<=_e+", max_size=60) | st.text(
    max_size=30
)


@settings(max_examples=200, deadline=None)
@given(YAML_TEXT)
@example("loss:\n  beta: 1\n  ? [a]\n  : 1")
@example("model: 2024-01-01\nloss: 1_000")
@example("? {a: b}\n: c")
@example("=: 1")
@example("a: =")
@example("loss: {beta: 0b}")
@example("loss: {beta: +.inf, gamma: .nan}")
@example("--- a\n--- b")
@example("%TAG ! x")
def test_any_yaml_text_is_a_value_or_a_sentence(text):
    """A configuration is typed by hand, and half of the time it is not finished yet."""
    try:
        read_yaml(text, "x.yaml")
    except WorkbenchError as error:
        assert str(error).startswith("x.yaml")
    try:
        RunConfig.from_yaml_text(text)
    except WorkbenchError as error:
        assert str(error)


SETTINGS = st.dictionaries(
    st.sampled_from(list(RunConfig.model_fields)),
    st.dictionaries(
        st.sampled_from(
            sorted(
                {name for field in RunConfig.model_fields.values() for name in field.annotation.model_fields}
                | {"gamma", "x"}
            )
        ),
        JSON_VALUES,
        max_size=3,
    ),
    max_size=3,
)


@settings(max_examples=100, deadline=None)
@given(SETTINGS)
def test_any_values_of_settings_are_a_configuration_or_a_sentence(values):
    """Every field meets every type sooner or later."""
    try:
        config = RunConfig.from_dict(values)
    except WorkbenchError as error:
        assert str(error)
    else:
        assert RunConfig.from_yaml_text(config.to_yaml()) == config
