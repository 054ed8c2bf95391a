"""The configuration: a setting that is read wrongly, or a wrong one that is not refused, spoils a run that takes
hours.
"""

import math
import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.config.live_changes import checked_changes
from simpo_workbench.config.run_config import LossConfig, ModelConfig, RunConfig, settings
from simpo_workbench.config.schema import FOREIGN_KEYS, FOREIGN_MEANINGS

#: Every setting with a value that is not its default: as text (command line and YAML alike) and as Python.
EXAMPLES = {
    "model.name": ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
    "model.source": ("modelscope", "modelscope"),
    "model.revision": ("v1.0", "v1.0"),
    "model.adapter": ("./my adapter", "./my adapter"),
    "model.load_in": ("bf16", "bf16"),
    "model.compute_dtype": ("fp32", "fp32"),
    "model.attention": ("eager", "eager"),
    "data.train": ("pairs.jsonl", "pairs.jsonl"),
    "data.eval": ("held_out.csv", "held_out.csv"),
    "data.eval_fraction": ("0.25", 0.25),
    "data.final_fraction": ("0.25", 0.25),
    "data.columns": ("{chosen: good, rejected: bad}", {"chosen": "good", "rejected": "bad"}),
    "data.pairs_from_ranking": ("all", "all"),
    "data.chat_template": ("template.jinja", "template.jinja"),
    "data.template_options": ("{enable_thinking: false, level: 2}", {"enable_thinking": False, "level": 2}),
    "data.special_tokens_in_text": ("as_tokens", "as_tokens"),
    "data.framed_prompts": ("as_conversation", "as_conversation"),
    "data.on_template_mismatch": ("drop", "drop"),
    "data.max_tokens": ("2048", 2048),
    "data.overlong": ("keep_end", "keep_end"),
    "data.limit": ("100", 100),
    "data.eval_limit": ("10", 10),
    "data.limit_takes": ("first", "first"),
    "data.system_prompt": ("Answer briefly.", "Answer briefly."),
    "loss.kind": ("simpo_hinge", "simpo_hinge"),
    "loss.beta": ("2.5", 2.5),
    "loss.gamma_beta_ratio": ("0.55", 0.55),
    "loss.label_smoothing": ("0.1", 0.1),
    "loss.sft_weight": ("0.05", 0.05),
    "lora.r": ("8", 8),
    "lora.alpha": ("16", 16.0),
    "lora.dropout": ("0.05", 0.05),
    "lora.target_modules": ("[q_proj, v_proj]", ["q_proj", "v_proj"]),
    "lora.use_rslora": ("true", True),
    "lora.use_dora": ("true", True),
    "training.learning_rate": ("5e-7", 5e-7),
    "training.scheduler": ("constant_with_warmup", "constant_with_warmup"),
    "training.warmup_ratio": ("0.05", 0.05),
    "training.epochs": ("2.5", 2.5),
    "training.max_steps": ("50", 50),
    "training.pairs_per_step": ("128", 128),
    "training.max_tokens_per_microbatch": ("4096", 4096),
    "training.optimizer": ("paged_adamw_8bit", "paged_adamw_8bit"),
    "training.weight_decay": ("1e-2", 0.01),
    "training.max_grad_norm": ("0", 0.0),
    "training.gradient_checkpointing": ("12", 12),
    "training.seed": ("4294967295", 2**32 - 1),
    "training.eval_every": ("0", 0),
    "training.save_every": ("7", 7),
    "training.keep_checkpoints": ("3", 3),
    "training.on_collapse": ("stop", "stop"),
    "generation.prompts": ('["Why is the sky blue?", Who are you?]', ["Why is the sky blue?", "Who are you?"]),
    "generation.held_out_prompts": ("0", 0),
    "generation.max_new_tokens": ("128", 128),
    "generation.temperature": ("0.7", 0.7),
    "generation.top_p": ("0.95", 0.95),
    "generation.every": ("5", 5),
    "run.name": ("first-try", "first-try"),
    "run.root": ("my runs", "my runs"),
}


def nested(path, value):
    section, _, name = path.partition(".")
    return {section: {name: value}}


def value_of(config, path):
    section, _, name = path.partition(".")
    return getattr(getattr(config, section), name)


def refusal(text, changes=None):
    """The sentence with which a YAML text is refused."""
    with pytest.raises(WorkbenchError) as error:
        RunConfig.from_yaml_text(text, changes)
    said = str(error.value)
    assert said.startswith("the configuration")
    assert "Traceback" not in said
    assert "validation error" not in said
    return said


# --- one setting, four ways in


def test_no_setting_goes_untested():
    assert list(EXAMPLES) == [info.path for info in settings()]


@pytest.mark.parametrize("path", EXAMPLES)
def test_a_setting_means_the_same_on_the_command_line_in_yaml_and_in_python(path):
    text, value = EXAMPLES[path]
    section, _, name = path.partition(".")
    in_python = RunConfig(**nested(path, value))
    assert value_of(in_python, path) == value
    assert value_of(RunConfig(), path) != value, "the example is the default and so shows nothing"
    assert RunConfig.from_dict({}, {path: text}) == in_python
    assert RunConfig.from_yaml_text(f"{section}:\n  {name}: {text}\n") == in_python
    assert RunConfig().with_changes({path: value}) == in_python
    assert RunConfig.from_yaml_text(in_python.to_yaml()) == in_python


@pytest.mark.parametrize("path", [info.path for info in settings() if info.optional])
@pytest.mark.parametrize("nothing", ["none", "null", "", None])
def test_an_optional_setting_can_be_taken_back(path, nothing):
    given = RunConfig(**nested(path, EXAMPLES[path][1]))
    assert given.with_changes({path: nothing}) == RunConfig()


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("data.final_fraction", "auto"),
        ("training.max_tokens_per_microbatch", "auto"),
        ("training.gradient_checkpointing", "all"),
        ("lora.target_modules", "all-linear"),
    ],
)
def test_a_word_is_possible_where_a_number_or_list_is(path, word):
    assert value_of(RunConfig.from_dict(None, {path: word}), path) == word


def test_the_defaults_are_the_demo():
    config = RunConfig()
    assert (config.model.name, config.model.load_in, config.data.train, config.run.root) == (
        "demo",
        "nf4",
        "demo",
        "runs",
    )
    assert (config.loss.kind, config.loss.beta, config.loss.gamma_beta_ratio, config.loss.gamma) == (
        "simpo",
        2.0,
        0.5,
        1.0,
    )
    assert (config.loss.sft_weight, config.loss.label_smoothing) == (0, 0), "pure SimPO unless asked"
    assert config.training.on_collapse == "warn"


def test_what_notebooks_and_files_rely_on_is_there():
    promised = {
        "model": "name source revision adapter load_in compute_dtype attention",
        "data": (
            "train eval eval_fraction columns chat_template template_options max_tokens overlong limit eval_limit"
            " system_prompt"
        ),
        "loss": "kind beta gamma_beta_ratio label_smoothing sft_weight",
        "lora": "r alpha dropout target_modules use_rslora use_dora",
        "training": (
            "learning_rate scheduler warmup_ratio epochs max_steps pairs_per_step max_tokens_per_microbatch optimizer"
            " weight_decay max_grad_norm gradient_checkpointing seed eval_every save_every keep_checkpoints on_collapse"
        ),
        "generation": "prompts max_new_tokens temperature top_p every",
        "run": "name root",
    }
    assert list(RunConfig.model_fields) == list(promised)
    paths = {info.path for info in settings()}
    assert {f"{section}.{name}" for section, names in promised.items() for name in names.split()} <= paths
    assert "model.trust_remote_code" not in paths, "paths and ids are data, never code"


# --- YAML out


def test_each_setting_stands_under_its_help_in_the_yaml():
    lines = RunConfig().to_yaml().splitlines()
    for info in settings():
        line = next(
            i
            for i, text in enumerate(lines)
            if text.startswith(f"  {info.name}:") and section_of(lines, i) == info.section
        )
        assert lines[line - 1] == f"  # {info.sentence}", info.path
        assert info.help in info.sentence


def section_of(lines, number):
    return next(text.rstrip(":") for text in reversed(lines[:number]) if re.fullmatch(r"[a-z]+:", text))


def test_the_yaml_of_the_defaults_is_the_defaults():
    text = RunConfig().to_yaml()
    assert RunConfig.from_yaml_text(text) == RunConfig()
    assert "  revision: null\n" in text
    assert f"  learning_rate: {RunConfig().training.learning_rate}\n" in text


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    st.text(),
    st.lists(st.text(), max_size=3),
    st.dictionaries(st.text(max_size=4), st.none() | st.booleans() | st.integers() | st.text(), max_size=3),
)
def test_any_text_survives_the_yaml(text, prompts, options):
    config = RunConfig(data={"system_prompt": text, "template_options": options}, generation={"prompts": prompts})
    assert RunConfig.from_yaml_text(config.to_yaml()) == config


@pytest.mark.parametrize(
    "text",
    [
        "5e-7",
        "null",
        "yes",
        "012",
        "2024-07-26",
        "a: b # c",
        "a\x85b",
        "a\u2028b",
        "two\n\n lines \n",
        "x" * 5000 + " y",
        "\ufeffx",
        "&a",
        "*a",
        "!a",
    ],
)
def test_text_that_looks_like_something_else_stays_text(text):
    config = RunConfig(model={"name": text}, data={"system_prompt": text}, generation={"prompts": [text]})
    again = RunConfig.from_yaml_text(config.to_yaml())
    assert (again.model.name, again.data.system_prompt, again.generation.prompts) == (text, text, [text])


def test_a_file_is_written_and_read(tmp_path):
    path = tmp_path / "run.yaml"
    config = RunConfig().with_changes({"loss.beta": 2.5, "data.system_prompt": "Grüße, 你好"})
    assert config.to_yaml(path) == path.read_text(encoding="utf-8")
    assert RunConfig.from_yaml(path) == RunConfig.from_yaml(str(path)) == config
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert RunConfig.from_yaml(path) == config, "a byte-order mark from a Windows editor does no harm"
    assert RunConfig.from_yaml(path, {"loss.beta": "4"}).loss.beta == 4


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("model: {name: é}".encode("latin-1"))
    for path, said in (
        (tmp_path / "none.yaml", "No such file"),
        (tmp_path, "directory"),
        (tmp_path / "latin.yaml", "UTF-8"),
    ):
        with pytest.raises(WorkbenchError, match=said) as error:
            RunConfig.from_yaml(path)
        assert str(path) in str(error.value)
    with pytest.raises(WorkbenchError, match=r"Cannot write the configuration.*no-folder"):
        RunConfig().to_yaml(tmp_path / "no-folder" / "run.yaml")


# --- YAML in


@pytest.mark.parametrize("number", ["5e-7", "5E-7", "5.0e-7", "0.0000005", "'5e-7'"])
def test_a_small_rate_is_a_number(number):
    rate = RunConfig.from_yaml_text(f"training: {{learning_rate: {number}}}").training.learning_rate
    assert isinstance(rate, float)
    assert rate == 5e-7


@pytest.mark.parametrize("text", ["", "\n", "# nothing but a comment\n", "---\n", "null", "{}", "loss: {}"])
def test_an_empty_file_is_the_defaults(text):
    assert RunConfig.from_yaml_text(text) == RunConfig()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("loss: {beta: 2", "line 1, column"),
        ("loss:\n\tbeta: 2", r"line 2, column 1.*\\t"),
        ("loss: {beta: 2, beta: 3}", "line 1.*duplicate key"),
        ("loss: {beta: 2}\nloss: {beta: 3}", "line 2.*duplicate key"),
        ("model: &m {name: demo}", r"line 1: anchors \(&\)"),
        ("model: {name: demo}\nloss: *m", r"line 2: .*aliases \(\*\)"),
        ("model: {name: !!python/object/apply:os.system [ls]}", r"line 1: .*tags \(!\)"),
        ("model: {name: !x demo}", r"line 1: .*tags \(!\)"),
        ("- model\n- loss", "must hold sections .* but it holds list"),
        ("just a sentence", "must hold sections .* but it holds str"),
        ("42", "must hold sections .* but it holds int"),
        ("\x00\x01\x02PK", "not YAML"),
        ("a: 1\n---\nb: 2", "line 2.*another document"),
        ("[" * 3000, "nested more than 30 deep"),
        ("? - ? x", "not YAML"),
        ("loss:", "loss: expected settings such as kind, beta, gamma_beta_ratio, got None"),
        ("loss: 5", "loss: expected settings such as kind, beta, gamma_beta_ratio, got 5"),
        ("loss: [beta]", "loss: expected settings such as kind"),
        ("loss: {1: 2}", r"loss\.1"),
        ("1: 2", "Unknown key '1' at the top level"),
        ("null: 2", "Unknown key 'None' at the top level"),
        ("? [1, 2]\n: 3", "Unknown key .* at the top level"),
    ],
)
def test_bad_yaml_is_refused_in_one_sentence(text, said):
    assert re.search(said, refusal(text))
    assert "\n" not in refusal(text)


@pytest.mark.parametrize("section", ["", " 5", " [beta]"])
def test_a_change_of_a_section_that_is_none_is_refused_in_words(section):
    assert "expected settings such as kind" in refusal(f"loss:{section}", {"loss.beta": "3"})


TOKENS = [
    "loss",
    "beta",
    "model",
    "training",
    ": ",
    ":",
    "- ",
    "? ",
    "\n",
    "\n  ",
    "\t",
    "{",
    "}",
    "[",
    "]",
    ",",
    '"',
    "'",
    "#",
    "|\n",
    ">-\n",
    "---\n",
]
TOKENS += [
    "5e-7",
    ".nan",
    "null",
    "~",
    "&a",
    "*a",
    "!!int",
    "%YAML 1.1\n",
    "<<",
    "=",
    "0x",
    "0b_",
    "2024-99-99",
    "12:30",
    "\x85",
    "\ufeff",
    "\0",
    "é",
]
TOKENS += ["9" * 5000, "0x" + "f" * 5000]


@hypothesis_settings(max_examples=150, deadline=None)
@given(st.text(max_size=40) | st.lists(st.sampled_from(TOKENS), max_size=12).map("".join))
def test_no_text_whatever_brings_a_traceback(text):
    try:
        outcome = RunConfig.from_yaml_text(text)
    except WorkbenchError as error:
        outcome = str(error)
    assert isinstance(outcome, RunConfig) or outcome.startswith("the configuration")


# --- wrong keys


@pytest.mark.parametrize(
    ("text", "key", "section", "nearest"),
    [
        ("loss: {betta: 3}", "betta", "loss", "beta"),
        ("loss: {gama: 3}", "gama", "loss", "gamma"),
        ("training: {learning_rat: 1}", "learning_rat", "training", "learning_rate"),
        ("training: {pairs_per_stp: 1}", "pairs_per_stp", "training", "pairs_per_step"),
        ("lora: {target_module: all-linear}", "target_module", "lora", "target_modules"),
        ("data: {colums: {}}", "colums", "data", "columns"),
        ("run: {nme: x}", "nme", "run", "name"),
    ],
)
def test_an_unknown_key_names_itself_its_section_and_the_nearest_key(text, key, section, nearest):
    said = refusal(text)
    assert f"Unknown key {key!r} in section {section}" in said
    assert f"did you mean {nearest!r}" in said


def test_an_unknown_section_or_a_key_outside_its_section_is_told_where_it_belongs():
    assert "Unknown key 'trainning' at the top level: did you mean 'training'" in refusal("trainning: {}")
    assert "write loss.beta" in refusal("beta: 3")
    assert "write loss.gamma" in refusal("gamma: 1")
    assert "write training.learning_rate" in refusal("learning_rate: 1e-5")
    assert "valid keys: r, alpha, dropout" in refusal("lora: {zzz: 1}")
    assert refusal("beta: 3\nseed: 1").count("Unknown key") == 2


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("loss.betta", "'betta' in section loss: did you mean 'beta'"),
        ("loss.gama", "did you mean 'gamma'"),
        ("beta", "write loss.beta"),
        ("gamma", "write loss.gamma"),
        ("los.beta", "did you mean 'loss.beta'"),
        ("model", "did you mean 'model.name'"),
        ("simpo_gamma", "this is called loss.gamma"),
        ("lora.lora_rank", "this is called lora.r"),
        ("zzzzzzz", "valid keys: model.name, "),
    ],
)
def test_an_unknown_option_is_told_its_nearest_one(path, said):
    with pytest.raises(WorkbenchError, match=re.escape(said)) as error:
        RunConfig.from_dict(None, {path: "1"})
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("key", "ours"),
    [
        ("simpo_gamma", "loss.gamma"),
        ("gamma_beta", "loss.gamma_beta_ratio"),
        ("pref_beta", "loss.beta"),
        ("simpo_beta", "loss.beta"),
        ("loss_type", "loss.kind"),
        ("cpo_alpha", "loss.sft_weight"),
        ("cutoff_len", "data.max_tokens"),
        ("max_length", "data.max_tokens"),
        ("lora_rank", "lora.r"),
        ("lora_r", "lora.r"),
        ("num_train_epochs", "training.epochs"),
        ("model_name_or_path", "model.name"),
        ("quantization_bit", "model.load_in"),
        ("output_dir", "run.root"),
    ],
)
def test_the_word_of_another_tool_is_answered_with_ours(key, ours):
    assert re.search(rf"Unknown key '{key}' at the top level: this is called {re.escape(ours)}\b", refusal(f"{key}: 1"))
    assert re.search(rf"in section training: this is called {re.escape(ours)}\b", refusal(f"training: {{{key}: 1}}"))


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("template", "the model's own chat template is used"),
        ("per_device_train_batch_size", "pairs per device times accumulation steps times devices"),
        ("gradient_accumulation_steps", "pairs per device times accumulation steps times devices"),
        ("max_prompt_length", "prompt and answer have one limit together"),
        ("save_total_limit", "the adapters of all evaluations are kept"),
        ("bf16", "model.compute_dtype the precision of the arithmetic"),
        ("val_size", "the share of the prompts"),
        ("dataset", "names that another tool keeps in a list of its own are not known"),
    ],
)
def test_a_word_that_means_something_else_here_is_not_called_the_same(key, sentence):
    """`template: qwen` renamed to data.chat_template would render every pair as the text "qwen"."""
    for text in (f"{key}: 1", f"data: {{{key}: 1}}"):
        assert sentence in refusal(text)
        assert "is called" not in refusal(text)


def test_code_from_a_model_repository_is_refused_with_a_way_out():
    for text in ("trust_remote_code: true", "model: {trust_remote_code: true}"):
        assert "never run; choose a model that transformers supports" in refusal(text)


@pytest.mark.parametrize("key", [*FOREIGN_KEYS, *FOREIGN_MEANINGS])
def test_every_name_that_another_tools_user_is_sent_to_exists(key):
    advice = (FOREIGN_KEYS | FOREIGN_MEANINGS)[key]
    named = re.findall(r"\b(?:model|data|loss|lora|training|generation|run)\.\w+", advice)
    assert named or key == "trust_remote_code"
    assert set(named) <= {info.path for info in settings()} | {"loss.gamma"}


# --- wrong values


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("loss.beta", 0, "> 0, ≤ 1000"),
        ("loss.beta", -2.0, "> 0, ≤ 1000"),
        ("loss.beta", math.nan, "> 0, ≤ 1000"),
        ("loss.beta", math.inf, "≤ 1000"),
        ("loss.beta", "much", "> 0, ≤ 1000"),
        ("loss.beta", True, "> 0, ≤ 1000"),
        ("loss.beta", [2], "> 0, ≤ 1000"),
        ("loss.beta", None, "> 0, ≤ 1000"),
        ("loss.gamma_beta_ratio", -0.1, "≥ 0"),
        ("loss.label_smoothing", 0.5, "< 0.5"),
        ("loss.kind", "orpo", "simpo | simpo_hinge | dpo"),
        ("model.load_in", "int4", "nf4 | fp4 | int8"),
        ("model.name", 7, "string"),
        ("data.eval_fraction", 0, "> 0"),
        ("data.eval_fraction", 1, "< 1"),
        ("data.max_tokens", 7, "≥ 8"),
        ("data.limit", 0, "≥ 1"),
        ("data.columns", "chosen=gut", "names and values in braces, {name: value}"),
        ("data.template_options", {"when": object()}, "JSON"),
        ("data.template_options", {"level": math.nan}, "finite"),
        ("lora.r", 0, "≥ 1"),
        ("lora.r", 16.5, "a whole number"),
        ("lora.r", True, "a whole number"),
        ("lora.dropout", 1, "< 1"),
        ("lora.target_modules", "q_proj", "all-linear or a list"),
        ("lora.target_modules", [1], "all-linear or a list"),
        ("lora.use_dora", "perhaps", "boolean"),
        ("training.learning_rate", 0, "> 0"),
        ("training.learning_rate", 2, "≤ 1"),
        ("training.warmup_ratio", 1.1, "≤ 1"),
        ("training.max_tokens_per_microbatch", "big", "auto or a whole number"),
        ("training.max_tokens_per_microbatch", 7, "at least 8"),
        ("training.gradient_checkpointing", -1, "at least 0"),
        ("training.max_tokens_per_microbatch", 10**12, "at most 10000000"),
        ("training.gradient_checkpointing", 10**6, "at most 10000"),
        ("training.gradient_checkpointing", True, "auto | all | none or a whole number"),
        ("training.seed", 2**32, "< 4294967296"),
        ("training.keep_checkpoints", 0, "≥ 1"),
        ("generation.prompts", "Hello?", "list"),
        ("generation.top_p", 0, "> 0"),
        ("generation.max_new_tokens", 8193, "≤ 8192"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_given_and_what_is_expected(path, value, expected):
    with pytest.raises(WorkbenchError) as error:
        RunConfig(**nested(path, value))
    said = str(error.value)
    assert said.startswith(f"{path} = ")
    assert isinstance(value, list | dict) or repr(value) in said
    assert expected in said
    assert len(said.splitlines()) <= 2


def test_a_number_with_thousands_of_digits_is_refused_in_words():
    assert "loss.beta = a number with thousands of digits is not possible" in refusal(f"loss: {{beta: 0x{'f' * 5000}}}")
    assert "loss.gamma = a number with thousands of digits" in refusal(f"loss: {{gamma: 0x{'f' * 5000}}}")


def test_each_bound_is_a_bound():
    """A bound that is only printed would let a wrong value into a run: the value at an open bound, or beyond a closed
    one, is refused.
    """
    checked = 0
    for info in settings():
        for sign, limit in re.findall(r"([>≥<≤]) ([\d.]+)", info.bounds):
            limit = float(limit)
            beyond = limit if sign in "><" else limit + (1 if sign == "≤" else -1)
            with pytest.raises(WorkbenchError, match=info.path):
                RunConfig().with_changes({info.path: int(beyond) if beyond.is_integer() else beyond})
            if sign in "≥≤":
                RunConfig().with_changes({info.path: int(limit) if limit.is_integer() else limit})
            checked += 1
    assert checked > 30


def test_every_number_has_an_upper_bound():
    """A slip of the finger (1e9 tokens, 10**12 steps) ends in a sentence, not in a full memory hours later."""
    absurd = {int: 10**15, float: 1e15}
    tried = 0
    for section, field in RunConfig.model_fields.items():
        for name, setting in field.annotation.model_fields.items():
            numbers = {int, float} & set(get_args(setting.annotation) or (setting.annotation,))
            for kind in numbers:
                with pytest.raises(WorkbenchError, match=f"{section}.{name} = "):
                    RunConfig().with_changes({f"{section}.{name}": absurd[kind]})
                tried += 1
    assert tried > 25


def test_a_mistake_in_yaml_names_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("loss: {beta: 0}")
    with pytest.raises(WorkbenchError, match=r"mine\.yaml: loss\.beta = 0 is not possible"):
        RunConfig.from_yaml(path)


# --- γ


@pytest.mark.parametrize(
    ("gamma", "beta", "ratio"), [(1.375, 2.5, 0.55), (1.0, 2.0, 0.5), (0, 2.0, 0.0), ("3", "10", 0.3)]
)
def test_gamma_is_taken_and_converted(gamma, beta, ratio):
    loss = LossConfig(gamma=gamma, beta=beta)
    assert loss.gamma_beta_ratio == pytest.approx(ratio, abs=1e-15)
    assert loss.gamma == pytest.approx(float(gamma), abs=1e-15)


def test_gamma_is_divided_by_the_beta_beside_it_and_a_later_beta_keeps_the_ratio():
    """One rule for files, overrides, with_changes and run.set: γ 1.5 at β 2 is γ/β 0.75, whatever β comes later."""
    file = "loss: {gamma: 1.5, beta: 2}"
    for config in (
        RunConfig.from_yaml_text(file),
        RunConfig.from_yaml_text("loss: {gamma: 1.5}"),  # the default β is 2
        RunConfig.from_yaml_text(file, {"loss.beta": "3"}),
        RunConfig.from_yaml_text("loss: {gamma: 1.5}", {"loss.beta": "3"}),
        RunConfig.from_dict({"loss": {"gamma": 1.5}}, {"loss.beta": 3}),
        RunConfig.from_yaml_text(file).with_changes({"loss.beta": 3}),
        checked_changes(RunConfig.from_yaml_text(file), {"beta": 3}),
    ):
        assert config.loss.gamma_beta_ratio == 0.75
    together = {"loss.gamma": "1.5", "loss.beta": "3"}
    for config in (
        RunConfig.from_dict(None, together),
        RunConfig.from_yaml_text("loss: {gamma: 9}", together),
        RunConfig.from_yaml_text(file).with_changes({"loss.gamma": 1.5, "loss.beta": 3}),
        checked_changes(RunConfig.from_yaml_text(file), {"gamma": 1.5, "beta": 3}),
        RunConfig.from_yaml_text("loss: {beta: 3}", {"loss.gamma": "1.5"}),
        checked_changes(RunConfig.from_yaml_text("loss: {beta: 3}"), {"gamma": 1.5}),
    ):
        assert config.loss.gamma_beta_ratio == 0.5


def test_a_file_whose_gamma_has_no_possible_beta_is_refused_although_another_beta_is_given():
    with pytest.raises(WorkbenchError, match="loss.beta = 0"):
        RunConfig.from_yaml_text("loss: {gamma: 1.5, beta: 0}", {"loss.beta": "3"})
    with pytest.raises(WorkbenchError, match="both given"):
        RunConfig.from_yaml_text("loss: {gamma: 1, gamma_beta_ratio: 0.5}", {"loss.beta": "3"})


def test_a_gamma_on_the_command_line_replaces_the_ratio_of_the_file_and_the_other_way_round():
    assert (
        RunConfig.from_yaml_text("loss: {beta: 2, gamma_beta_ratio: 0.3}", {"loss.gamma": "1.2"}).loss.gamma_beta_ratio
        == 0.6
    )
    assert (
        RunConfig.from_yaml_text("loss: {beta: 2, gamma: 1.2}", {"loss.gamma_beta_ratio": "0.3"}).loss.gamma_beta_ratio
        == 0.3
    )
    assert RunConfig().with_changes({"loss.gamma": 2.0}).loss.gamma_beta_ratio == 1.0


def test_both_gamma_and_the_ratio_are_an_error():
    assert "both given" in refusal("loss: {gamma: 1, gamma_beta_ratio: 0.5}")
    with pytest.raises(WorkbenchError, match="both given"):
        RunConfig.from_dict(None, {"loss.gamma": "1", "loss.gamma_beta_ratio": "0.5"})


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("{gamma: -1}", "gamma_beta_ratio = -0.5"),
        ("{gamma: .nan}", "gamma_beta_ratio = nan"),
        ("{gamma: .inf}", "gamma_beta_ratio = inf"),
        ("{gamma: big}", "loss.gamma = 'big'"),
        ("{gamma: [1]}", "both must be numbers"),
        ("{gamma: true}", "both must be numbers"),
        ("{gamma: 1, beta: x}", "both must be numbers"),
        ("{gamma: 1, beta: 0}", "loss.beta = 0"),
        ("{gamma: 1, beta: -2}", "loss.beta = -2"),
        ("{gamma: }", "loss.gamma = None"),
    ],
)
def test_a_gamma_that_cannot_be_is_refused_in_words(loss, said):
    assert said in refusal(f"loss: {loss}")


def test_beyond_gamma_means_beyond_zero_for_dpo():
    assert LossConfig(beta=2.0, gamma_beta_ratio=0.5).target_margin == 1.0
    dpo = LossConfig(kind="dpo", beta=0.1, gamma_beta_ratio=0.5)
    assert (dpo.has_target_margin, dpo.target_margin) == (False, 0.0)


# --- a configuration is a value


def test_a_configuration_cannot_be_changed_behind_a_runs_back():
    config = RunConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.loss.beta = 4
    changed = config.with_changes({"loss.beta": 4})
    assert (config.loss.beta, changed.loss.beta) == (2.0, 4.0)
    assert changed.model == config.model


def test_changes_do_not_touch_the_dict_they_are_made_on():
    values = {"loss": {"beta": 3}}
    assert RunConfig.from_dict(values, {"loss.beta": 4}).loss.beta == 4
    assert values == {"loss": {"beta": 3}}


def test_sections_may_be_objects():
    config = RunConfig(model=ModelConfig(name="x"), loss=LossConfig(beta=3))
    assert (config.model.name, config.loss.beta) == ("x", 3)
    again = RunConfig.from_dict({"loss": LossConfig(beta=3, gamma_beta_ratio=0.4)}, {"loss.beta": "4"})
    assert (again.loss.beta, again.loss.gamma_beta_ratio) == (4, 0.4)


def test_warnings_come_with_the_configuration():
    assert RunConfig().warnings() == []
    assert "training.learning_rate 0.001" in RunConfig().with_changes({"training.learning_rate": "1e-3"}).warnings()[0]
