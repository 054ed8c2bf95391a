import json
import shutil

import pytest
from click.testing import CliRunner

import simpo_workbench as wb
from simpo_workbench.base.errors import SettingWarning
from simpo_workbench.base.files import write_json
from simpo_workbench.cli.main import main
from simpo_workbench.report.facts import headline, headline_of
from simpo_workbench.report.report import report_html
from simpo_workbench.runs.root import list_runs
from simpo_workbench.ui.runs.several_runs import config_differences

OWN = {
    "r": 3,
    "alpha": 5.0,
    "dropout": 0.0,
    "target_modules": ["q_proj", "v_proj"],
    "use_rslora": True,
    "use_dora": False,
}
_SHORT = {"training.max_steps": 1, "generation.held_out_prompts": 0, "generation.prompts": ["Hi"]}


@pytest.fixture(scope="module")
def sft(finished_run):
    """A run whose adapter has settings of its own."""
    return finished_run({f"lora.{name}": value for name, value in OWN.items()} | _SHORT)


@pytest.fixture(scope="module")
def continued(sft, tiny_settings, tmp_path_factory):
    """A run that goes on with that adapter, although its configuration names another rank; what it said; its config."""
    place = {"run.name": "onward", "run.root": str(tmp_path_factory.mktemp("onward"))}
    changes = {"model.adapter": str(sft.adapter), "lora.r": 16, **_SHORT, **place}
    config = wb.RunConfig.from_dict({**tiny_settings, "lora": {}}, changes)
    said = []
    with pytest.warns(SettingWarning) as warned:
        run = wb.train(config, on_record=said.append)
    texts = [record["text"] for record in said if record["kind"] == "note"]
    return run, [str(warning.message) for warning in warned], texts


def test_the_run_has_the_adapters_own_settings_and_says_the_contradiction(continued, sft):
    run, warned, said = continued
    weights = json.loads((run.adapter / "adapter_config.json").read_text())
    assert (weights["r"], weights["lora_alpha"], weights["use_rslora"]) == (3, 5.0, True)
    assert run.lora == run.environment["lora"] == OWN
    assert any(line.startswith("lora.r 16 is not used: the adapter has r 3") for line in warned)
    assert not any("lora.alpha" in line for line in warned)  # a default that nobody named
    assert any("those of model.adapter (r 3, alpha 5," in line for line in said)
    assert sft.lora == sft.config.lora.model_dump() == OWN


def test_reports_lists_and_headlines_show_the_adapters_own(continued):
    run, *_ = continued
    assert "LoRA r3 of adapter" in headline_of(run)
    assert headline_of(run) == headline(run.config)
    page = report_html(run)
    assert "LoRA r3 of adapter" in page
    assert "those of model.adapter (r 3, alpha 5," in page
    assert repr(run) == "Run('onward', finished, step 1 of 1, LoRA r3 of adapter)"
    assert list(list_runs(run.path.parent)["lora"]) == ["r3 of adapter"]


def test_the_command_line_shows_the_adapters_own(continued):
    run, *_ = continued
    root = ["--root", str(run.path.parent)]
    assert "LoRA r3 of adapter" in CliRunner().invoke(main, ["show", run.name, *root]).output
    shown = CliRunner().invoke(main, ["show", run.name, "--json", *root]).output
    assert json.loads(shown)["lora"] == OWN
    assert json.loads(CliRunner().invoke(main, ["runs", "--json", *root]).output)[0]["lora"] == "r3 of adapter"


def test_a_preflight_shows_the_adapters_own_and_the_contradiction(continued):
    result = wb.preflight(continued[0].config.with_changes({"lora.r": 12}))
    assert "LoRA r 3, alpha 5," in str(result)
    assert "those of model.adapter" in str(result)
    assert any(line.startswith("lora.r 12 is not used: the adapter has r 3") for line in result.warnings)
    assert type(result).from_dict(json.loads(json.dumps(result.as_dict()))) == result
    older = {name: value for name, value in result.as_dict().items() if name != "adapter"}
    assert "adapter" not in dict(type(result).from_dict(older).rows())


def test_runs_are_compared_by_what_holds(continued, sft):
    configs, loras = {"a": continued[0].config, "b": sft.config}, {"a": continued[0].lora, "b": sft.lora}
    assert [row[0] for row in config_differences(configs, {}, loras)[1]] == ["model.adapter"]
    assert "lora.r" in [row[0] for row in config_differences(configs)[1]]
    unknown = config_differences(configs | {"c": sft.config}, {}, loras | {"b": None, "c": sft.lora | {"r": 9}})[1]
    assert ["lora.r", "3", "?", "9"] in unknown


def test_a_run_from_before_shows_what_its_own_adapter_has(continued, sft, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(continued[0].path, folder)
    (folder / "manifest.json").unlink()
    environment = continued[0].environment
    write_json(folder / "environment.json", {name: value for name, value in environment.items() if name != "lora"})
    assert wb.attach(folder).lora == OWN
    shutil.rmtree(folder / "adapter")  # then that of a checkpoint
    assert wb.attach(folder).lora == OWN
    shutil.rmtree(folder / "checkpoints")  # and at last model.adapter itself
    assert wb.attach(folder).lora == OWN


def test_a_damaged_file_hides_the_rank_and_breaks_no_list(continued, tmp_path):
    folder = tmp_path / "runs" / "broken"
    shutil.copytree(continued[0].path, folder)
    (folder / "environment.json").write_text("{")
    run = wb.attach(folder)
    with pytest.raises(wb.WorkbenchError, match="environment.json"):
        run.lora  # noqa: B018
    assert "LoRA of adapter" in headline_of(run)
    assert "LoRA of adapter" in repr(run)
    assert list(list_runs(folder.parent)["lora"]) == ["of adapter"]


def test_an_adapter_in_the_home_folder_is_found(sft, tiny_settings, monkeypatch):
    monkeypatch.setenv("HOME", str(sft.path))
    config = wb.RunConfig.from_dict(tiny_settings, {"model.adapter": "~/adapter"})
    assert "LoRA r3 of adapter" in headline(config)
    with wb.load_model(config.model) as model:
        assert model.model.peft_config["start"].r == 3
