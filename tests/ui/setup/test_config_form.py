"""A form that loses what was typed, starts a run with half of a change, or shows code that makes another run costs
hours of training.
"""

import json
import shlex

import pytest
from click.testing import CliRunner
from panels import until

import simpo_workbench as wb
from simpo_workbench.cli.main import main
from simpo_workbench.config.presets import preset_notes
from simpo_workbench.ui.parts.fields import STOPS, all_fields, flow_yaml, number_text
from simpo_workbench.ui.setup.config_code import as_command, as_python
from simpo_workbench.ui.setup.config_form import ConfigForm

AWKWARD = {
    "generation.prompts": [
        "One line.",
        "Two\nlines",
        "- a dash",
        " spaces ",
        "next\x85line",
        "emoji 😀, 'quotes' \"both\" $HOME `x`",
    ],
    "data.columns": {"prompt": "the question: text", "chosen": "7", "a: b": "#no comment"},
    "data.template_options": {"enable_thinking": False, "depth": 3, "names": ["x", None]},
    "data.system_prompt": "Be kind.\nBe short; it's <b>important</b>.",
    "lora.target_modules": ["q_proj", "v_proj"],
    "training.gradient_checkpointing": 4,
    "training.max_steps": 12,
    "training.learning_rate": 3e-7,
    "lora.use_dora": True,
}


def evaluated(code):
    names = {}
    exec(code, names)
    return names["config"]


def commanded(line):
    words = shlex.split(line, comments=True)
    assert words[:2] == ["simpo-workbench", "train"]
    result = CliRunner().invoke(main, [*words[1:], "--show-config"])
    assert result.exit_code == 0, result.output
    return wb.RunConfig.from_yaml_text(result.stdout)


def shown_code(form, view):
    form.views.value = view
    return form.code.value


def test_every_setting_has_one_control_with_its_help_and_bounds():
    shown = {field["path"]: field for section in ConfigForm().fields.sections for field in section["fields"]}
    assert list(shown) == list(all_fields())
    kinds = {
        path: shown[path]["kind"]
        for path in (
            "lora.use_dora",
            "loss.kind",
            "training.epochs",
            "training.max_tokens_per_microbatch",
            "data.columns",
            "generation.prompts",
            "model.name",
        )
    }
    assert list(kinds.values()) == ["switch", "choice", "number", "number", "yaml", "lines", "text"]
    assert shown["training.epochs"]["hint"].replace("\N{NO-BREAK SPACE}", " ") == "> 0, ≤ 1000"
    assert shown["data.max_tokens"]["unit"] == "tokens"
    assert "empty: none" in shown["training.max_steps"]["hint"]
    assert all(field["help"] for field in shown.values())


@pytest.mark.parametrize("config", [*map(wb.preset, preset_notes()), wb.preset("demo").with_changes(AWKWARD)])
def test_what_a_control_shows_is_read_back_as_the_same_value(config):
    values = {}
    for path, field in all_fields().items():
        value = getattr(getattr(config, field.info.section), field.info.name)
        values[path] = field.read(field.text_of(value), config.generation.prompts)
    sections = {}
    for path, value in values.items():
        section, _, name = path.partition(".")
        sections.setdefault(section, {})[name] = value
    assert wb.RunConfig.from_dict(sections) == config


@pytest.mark.parametrize(
    ("value", "text"), [(2.0, "2"), (1.2e-4, "1.2e-4"), (1e-05, "1e-5"), (0.05, "0.05"), (20, "20"), (0.0, "0")]
)
def test_numbers_are_written_as_people_type_them(value, text):
    assert number_text(value) == text
    assert float(text) == value


def test_typing_changes_the_configuration_and_marks_the_field():
    form = ConfigForm()
    form.fields.say("loss.beta", "4")
    form.fields.say("training.learning_rate", "1e-4")
    assert (form.config.loss.beta, form.config.training.learning_rate) == (4.0, 1e-4)
    assert form.fields.remarks["loss.beta"]["changed"] == "changed, was 2"
    assert form.fields.remarks["training.learning_rate"]["changed"] == "changed, was 7e-5"
    assert "<b>2</b>" in form.count.value
    form.fields.say("lora.use_dora", True)
    assert form.fields.remarks["lora.use_dora"]["changed"] == "changed, was off"
    form.fields.say("loss.beta", "2.0")
    assert form.config.loss.beta == 2
    assert "changed" not in form.fields.remarks.get("loss.beta", {})


def test_gamma_is_shown_for_every_beta_and_ratio():
    form = ConfigForm()
    form.fields.say("loss.beta", "10")
    form.fields.say("loss.gamma_beta_ratio", "0.3")
    assert "= 10 · 0.3 = 3," in form.fields.remarks["loss.gamma_beta_ratio"]["note"]
    form.fields.say("loss.beta", "500")  # beyond the slider
    assert form.config.loss.beta == 500
    form.fields.say("loss.kind", "dpo")
    assert "no target margin" in form.fields.remarks["loss.gamma_beta_ratio"]["note"]


def test_the_sliders_reach_the_settings_of_the_paper():
    assert (STOPS["loss.beta"][0], STOPS["loss.beta"][-1]) == (0.1, 20)
    assert (STOPS["loss.gamma_beta_ratio"][0], STOPS["loss.gamma_beta_ratio"][-1]) == (0, 2)
    for name in preset_notes():
        assert wb.preset(name).loss.beta in STOPS["loss.beta"]
        assert wb.preset(name).loss.gamma_beta_ratio in STOPS["loss.gamma_beta_ratio"]
    assert STOPS["loss.beta"] == sorted(set(STOPS["loss.beta"]))


def test_a_wrong_value_is_said_and_kept_and_the_last_valid_configuration_stays():
    form = ConfigForm()
    form.fields.say("loss.beta", "3")
    form.fields.say("training.epochs", "two")
    form.fields.say("data.columns", "prompt: [")
    assert form.config == wb.preset("demo").with_changes({"loss.beta": 3})
    assert form.fields.values["training.epochs"] == "two"
    assert form.fields.remarks["training.epochs"]["problem"].startswith(
        "training.epochs = 'two' is not possible: expected > 0, ≤ 1000."
    )
    assert "this is not YAML" in form.fields.remarks["data.columns"]["problem"]
    assert len(form.problems) == 2
    assert "Error:" in form.line.value
    assert form.save.disabled
    assert "2 settings" in form.save.tooltip
    form.fields.say("training.epochs", "2")
    form.fields.say("data.columns", "")
    assert form.problems == []
    assert form.config == wb.preset("demo").with_changes({"loss.beta": 3, "training.epochs": 2})
    assert "All settings are valid" in form.line.value
    assert not form.save.disabled


def test_a_wrong_setting_does_not_hide_another_in_the_same_section():
    form = ConfigForm()
    form.fields.say("data.template_options", "[")
    form.fields.say("data.max_tokens", "3")
    form.fields.say("training.max_tokens_per_microbatch", "3")
    assert {path for path, said in form.fields.remarks.items() if "problem" in said} == {
        "data.template_options",
        "data.max_tokens",
        "training.max_tokens_per_microbatch",
    }


def test_setting_the_configuration_moves_all_controls_at_once():
    form, heard = ConfigForm(), []
    form.observe(lambda change: heard.append(change["new"]), "config")
    other = wb.preset("demo").with_changes(AWKWARD)
    form.config = other
    assert heard == [other]
    assert form.fields.values["training.max_steps"] == "12"
    assert form.fields.values["lora.use_dora"] is True
    assert form.fields.values["lora.target_modules"] == "q_proj, v_proj"
    form.fields.say("loss.beta", "3")
    assert heard == [other, other.with_changes({"loss.beta": 3})], "settings that were not touched stay as they came"


def test_setting_the_same_configuration_again_clears_what_is_wrong():
    form = ConfigForm()
    form.fields.say("loss.beta", "-1")
    form.config = form.config
    assert form.problems == []
    assert form.fields.values["loss.beta"] == "2"


def test_texts_that_read_like_no_value_survive_other_edits():
    form = ConfigForm(wb.RunConfig.from_dict({"data": {"system_prompt": "none"}}))
    form.fields.say("loss.beta", "3")
    assert form.config.data.system_prompt == "none"
    assert "Not exact" in shown_code(form, "as command")


def test_prompts_are_one_per_line_and_longer_ones_are_yaml():
    form = ConfigForm()
    form.fields.say("generation.prompts", "First?\n\nSecond: yes?")
    assert form.config.generation.prompts == ["First?", "Second: yes?"]
    form.fields.say("generation.prompts", "- |-\n  Two\n  lines\n- One")
    assert form.config.generation.prompts == ["Two\nlines", "One"]
    again = ConfigForm(form.config)
    assert again.fields.values["generation.prompts"] == '- "Two\\nlines"\n- "One"'


def test_a_prompt_keeps_its_check_while_its_line_is_unchanged():
    form, (france, stain, walk) = ConfigForm(), wb.preset("demo").generation.prompts
    lines = [france["prompt"], stain["prompt"], walk]
    assert form.fields.values["generation.prompts"] == "\n".join(lines)
    form.fields.say("generation.prompts", "\n".join([walk, france["prompt"], "New?"]))
    assert form.config.generation.prompts == [walk, france, "New?"]
    form.fields.say("generation.prompts", "What is the capital of Spain?")
    assert form.config.generation.prompts == ["What is the capital of Spain?"]
    form.fields.say("generation.prompts", "\n".join(lines))
    assert form.config.generation.prompts == [france, stain, walk], "typed again, it is the same prompt"
    assert "generation.prompts" not in form.fields.remarks


def test_a_check_can_be_typed_and_a_wrong_one_is_marked_at_its_field():
    form = ConfigForm()
    form.fields.say("generation.prompts", '- {prompt: "2 + 2?", expect: {any: ["4", four]}}\n- Hello?')
    checked = {"prompt": "2 + 2?", "expect": {"any": ["4", "four"]}}
    assert form.config.generation.prompts == [checked, "Hello?"]
    assert evaluated(as_python(form.config, form.base)) == form.config
    assert commanded(as_command(form.config, form.base)) == form.config
    form.fields.say("generation.prompts", "- {prompt: a, expect: {any: /(/}}")
    assert "is no regular expression" in form.fields.remarks["generation.prompts"]["problem"]


def test_the_preset_that_equals_the_configuration_is_the_base():
    assert ConfigForm(wb.preset("paper-gemma2-9b-it")).presets.value == "paper-gemma2-9b-it"
    assert ConfigForm(wb.preset("paper-gemma2-9b-it").with_changes({"lora.r": 8})).base == "demo"


def test_choosing_a_preset_and_going_back_lose_nothing():
    form = ConfigForm()
    assert form.back.disabled
    form.fields.say("lora.r", "64")
    form.presets.value = "seed-article"
    assert form.config == wb.preset("seed-article")
    assert "Qwen2.5-7B-Instruct stands in" in form.note.value
    assert form.fields.values["lora.r"] == "8"
    form.presets.value = "qlora-8b-24gb"
    form.undo.click()
    assert (form.base, form.config.lora.r) == ("demo", 64)
    form.back.click()
    assert form.config == wb.preset("demo")
    assert "<b>0</b>" in form.count.value


def test_a_second_click_on_undo_that_came_early_does_nothing():
    form = ConfigForm()
    form.fields.say("lora.r", "64")
    form.presets.value = "seed-article"
    form.undo.click()
    form.undo.click()
    assert (form.config.lora.r, form.trouble) == (64, "")
    assert "Your changes are back" in form.line.value


def test_what_a_page_sends_does_not_take_back_what_it_does_not_know_yet():
    """While the kernel was busy a preset was chosen, and then β was typed over the old settings, which the page still
    shows.
    """
    form, answers = ConfigForm(), []
    form.fields.send = lambda message: answers.append(message)
    form.presets.value = "seed-article"
    form.fields._heard(None, {"typed": {"loss.beta": "4"}, "number": 3, "view": "a"}, [])
    assert form.config == wb.preset("seed-article").with_changes({"loss.beta": 4})
    assert answers == [{"heard": 3, "view": "a"}]


# --- with a root that is settled elsewhere


def test_a_settled_root_is_kept_whatever_is_chosen_and_counts_as_no_change(tmp_path):
    form, kept = ConfigForm(root="../runs"), {"run.root": "../runs"}
    assert form.config == wb.preset("demo").with_changes(kept)
    assert "<b>0</b>" in form.count.value
    assert form.back.disabled
    assert form.fields.remarks.keys() == ConfigForm().fields.remarks.keys()
    form.presets.value = "seed-article"
    assert form.config == wb.preset("seed-article").with_changes(kept)
    form.fields.say("loss.beta", "7")
    assert "changed: 1." in form.snapshot()
    form.back.click()
    assert form.config == wb.preset("seed-article").with_changes(kept)
    assert "unchanged" in form.snapshot()
    form.undo.click()
    assert (form.config.loss.beta, form.config.run.root) == (7, "../runs")
    form.path.value = str(tmp_path / "other.yaml")
    wb.preset("demo").with_changes({"run.root": "elsewhere", "loss.beta": 3}).to_yaml(form.path.value)
    form.load.click()
    until(lambda: "Loaded" in form.line.value)
    assert (form.config.loss.beta, form.config.run.root) == (3, "../runs")
    assert "Runs are still kept in &#39;../runs&#39;" in form.line.value


def test_a_configuration_set_from_python_gets_the_settled_root_before_anyone_hears_of_it():
    form, heard = ConfigForm(root="../runs"), []
    form.observe(lambda change: heard.append(change["new"].run.root), "config")
    form.config = wb.preset("paper-gemma2-9b-it")
    assert heard == ["../runs"]
    assert form.base == "paper-gemma2-9b-it"


def test_a_settled_root_is_not_offered_but_stands_in_all_code():
    form = ConfigForm(root="../runs")
    offered = {field["path"] for section in form.fields.sections for field in section["fields"]}
    assert set(all_fields()) - offered == {"run.root"}
    form.fields._heard(None, {"typed": {"run.root": "x"}, "number": 1, "view": "a"}, [])
    assert form.config.run.root == "../runs"
    assert evaluated(as_python(form.config, form.base)) == form.config
    assert commanded(as_command(form.config, form.base)) == form.config
    assert "../runs" in shown_code(form, "as YAML")


def test_warnings_stand_at_their_setting_and_in_the_notice():
    form = ConfigForm()
    form.fields.say("training.learning_rate", "1e-3")
    assert "high enough to ruin the model" in form.fields.remarks["training.learning_rate"]["warning"]
    assert "swb-attention" in form.notices.value
    assert "high enough to ruin the model" in form.notices.value


@pytest.mark.parametrize("base", ["demo", "paper-gemma2-9b-it"])
def test_the_python_and_the_command_make_the_same_configuration(base):
    for config in (wb.preset(base), wb.preset(base).with_changes(AWKWARD)):
        assert evaluated(as_python(config, base)) == config
        assert commanded(as_command(config, base)) == config
    assert (
        as_command(wb.preset(base).with_changes({"loss.beta": 4}), base)
        == f"simpo-workbench train --preset {base} --loss.beta 4\n"
    )


def test_the_code_follows_the_form():
    form = ConfigForm()
    form.fields.say("loss.beta", "4")
    assert "&#34;loss.beta&#34;: 4," in shown_code(form, "as Python")
    assert "--loss.beta 4" in shown_code(form, "as command")
    assert "<ins>  beta: 4.0</ins>" in shown_code(form, "as YAML")
    assert shown_code(form, "as YAML").count("<ins>") == 1
    form.fields.say("data.train", "<script>alert(1)</script>")
    assert "<script>" not in form.code.value
    assert "&lt;script&gt;" in form.code.value


def test_saving_asks_before_it_overwrites_and_loading_brings_it_back(tmp_path):
    form, file = ConfigForm(), tmp_path / "my.yaml"
    form.save.click()
    assert "No file is named" in form.line.value
    form.path.value = str(file)
    form.fields.say("loss.beta", "4")
    form.save.click()
    until(lambda: "Saved" in form.line.value)
    assert wb.RunConfig.from_yaml(file) == form.config
    form.fields.say("loss.beta", "5")
    form.save.click()
    assert "exists" in form.line.value
    assert form.save.description == "Overwrite"
    assert wb.RunConfig.from_yaml(file).loss.beta == 4
    form.save.click()
    until(lambda: "Saved" in form.line.value)
    assert form.save.description == "Save"
    form.fields.say("loss.beta", "6")
    form.load.click()
    until(lambda: "Loaded" in form.line.value)
    assert form.config.loss.beta == 5
    form.undo.click()
    assert form.config.loss.beta == 6


def test_an_overwrite_that_was_asked_for_one_file_is_not_taken_for_another(tmp_path):
    form = ConfigForm()
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("kept")
    form.path.value = str(tmp_path / "a.yaml")
    form.save.click()
    form.path.value = str(tmp_path / "b.yaml")
    assert form.save.description == "Save"
    form.save.click()
    assert (tmp_path / "b.yaml").read_text() == "kept"


def test_files_that_cannot_be_read_or_written_are_said_in_words(tmp_path):
    form, broken = ConfigForm(), tmp_path / "broken.yaml"
    broken.write_text("loss: {betta: 3}")
    form.path.value = str(broken)
    form.load.click()
    until(lambda: "did you mean &#39;beta&#39;" in form.line.value)
    assert form.config == wb.preset("demo")
    form.path.value = str(tmp_path / "no-folder" / "x.yaml")
    form.save.click()
    until(lambda: "Cannot write the configuration" in form.line.value)
    assert form.trouble == ""


def test_the_still_picture_tells_what_is_changed():
    form = ConfigForm()
    form.fields.say("loss.beta", "4")
    form.fields.say("data.train", "<b>x</b>")
    still = form.snapshot()
    assert "loss.beta" in still
    assert "<td>4</td>" in still
    assert "<b>x</b>" not in still


def test_odd_characters_survive_flow_yaml():
    text = "a\x85b\u2028c\ufeffd\x7f😀\n\t\"'\\"
    assert all_fields()["generation.prompts"].read(f"- {flow_yaml(text)}") == [text]


def test_with_an_adapter_its_own_lora_settings_stand_beside_the_fields(tmp_path):
    own = {"r": 8, "lora_alpha": 24, "lora_dropout": 0, "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(own))
    form = ConfigForm()
    assert not any("adapter" in texts.get("note", "") for texts in form.fields.remarks.values())
    form.fields.say("model.adapter", str(tmp_path))
    notes = {path: texts.get("note") for path, texts in form.fields.remarks.items()}
    assert notes["lora.r"] == "The adapter's own holds: 8, not what is here."
    assert notes["lora.dropout"] == "The adapter's own holds: as here."
    assert notes["lora.target_modules"] == "The adapter's own holds: q_proj, not what is here."
    assert "r 8, alpha 24, dropout 0" in notes["model.adapter"]
    assert "r 8, alpha 24" in str(form.snapshot())
    assert "warning" not in form.fields.remarks["lora.r"]  # the default, which nobody chose
    form.fields.say("lora.r", "64")
    assert form.fields.remarks["lora.r"]["warning"].startswith("lora.r 64 is not used: the adapter has r 8")
    form.fields.say("model.adapter", str(tmp_path / "nowhere"))
    assert "There is no adapter" in form.fields.remarks["model.adapter"]["note"]
    assert "note" not in form.fields.remarks["lora.r"]
