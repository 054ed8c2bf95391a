"""What a user would lose: a run from before that goes on with other pairs, or is refused, because a setting came."""

from simpo_workbench.config.earlier import BEFORE, as_it_was, named_settings
from simpo_workbench.config.run_config import RunConfig, settings
from simpo_workbench.engine.setup import config_hash


def test_a_run_from_before_keeps_what_was_done_then_and_its_hash():
    old = RunConfig.from_yaml_text("data:\n  limit: 8\n")
    assert old.data.limit_takes == "sample"
    read = as_it_was(old)
    assert (read.data.limit_takes, read.data.limit) == ("first", 8)
    assert config_hash(read) == config_hash(old)
    assert named_settings(read)["data"] == {"limit": 8}


def test_a_run_of_today_keeps_what_its_file_names():
    written = RunConfig().to_yaml()
    new = RunConfig.from_yaml_text(written)
    assert as_it_was(new) is new
    chosen = RunConfig.from_yaml_text(written.replace("limit_takes: sample", "limit_takes: first"))
    assert as_it_was(chosen).data.limit_takes == "first"
    assert config_hash(chosen) != config_hash(new)


def test_what_is_listed_are_settings_with_another_default():
    defaults = {info.path: info.default for info in settings()}
    for section, values in BEFORE.items():
        for name, value in values.items():
            assert defaults[f"{section}.{name}"] != value
