"""Inputs made to do harm: a model that runs a program when it is loaded, a template or a file that eats the machine, a
name that leads out of its folder.
"""

import gzip
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.base.files import read_jsonl
from simpo_workbench.config.run_config import RunConfig
from simpo_workbench.config.yaml_text import read_yaml
from simpo_workbench.pairs import files as pair_files
from simpo_workbench.pairs.pairs import load_pairs
from simpo_workbench.runs.folder import check_name, find_run_folder, new_run_folder, run_names

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.timeout(120)  # what hangs fails; nothing here is about speed


def sentence(error):
    """The text of our own error, which must be one line without a library's traceback in it."""
    text = str(error.value)
    assert isinstance(error.value, WorkbenchError)
    assert "\n" not in text
    assert len(text) < 700
    return text


def within_memory(megabytes, code, *arguments):
    """What a small program prints that may use so much address space; it has no torch, so that the limit is about the
    input.
    """
    limit = f"import resource, sys\nresource.setrlimit(resource.RLIMIT_AS, ({megabytes} * 1024**2,) * 2)\n"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run(
        [sys.executable, "-c", limit + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


LOAD = (
    "from simpo_workbench.base.errors import WorkbenchError\nfrom simpo_workbench.pairs.pairs import load_pairs\n"
    "try:\n    print(load_pairs(sys.argv[1]).report())\nexcept WorkbenchError as error:\n    print('refused:', error)\n"
)


# --- weights: nothing is unpickled


class Bomb:
    """Unpickled, it makes a file: the least that a pickle can do."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


@pytest.fixture
def bomb(tmp_path):
    """(pickle bytes, torch archive bytes, marker): both pickles make the marker when they are read."""
    import io

    import torch

    marker, archive = tmp_path / "it-ran", io.BytesIO()
    torch.save(Bomb(marker), archive)
    pickle.loads(pickle.dumps(Bomb(tmp_path / "try"))).close()
    assert (tmp_path / "try").exists(), "the bomb itself must work"
    return SimpleNamespace(pickle=pickle.dumps(Bomb(marker)), zip=archive.getvalue(), marker=marker)


def hide_as_safetensors(folder, bomb):
    (folder / "model.safetensors").write_bytes(bomb.pickle)


def hide_old_pickle_as_safetensors(folder, bomb):
    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb(bomb.marker), protocol=0))


def hide_archive_as_safetensors(folder, bomb):
    (folder / "model.safetensors").write_bytes(bomb.zip)


def leave_as_bin(folder, bomb):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(bomb.zip)


def leave_as_pt(folder, bomb):
    (folder / "model.safetensors").unlink()
    for name in ("consolidated.00.pth", "model.pt", "model.ckpt"):
        (folder / name).write_bytes(bomb.pickle)


def leave_an_index_of_pickles(folder, bomb):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model-00001-of-00001.bin").write_bytes(bomb.zip)
    (folder / "pytorch_model.bin.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"lm_head.weight": "pytorch_model-00001-of-00001.bin"}})
    )


def hide_behind_a_safetensors_index(folder, bomb):
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    (folder / "shard.bin").write_bytes(bomb.zip)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"lm_head.weight": "shard.bin"}})
    )


def hide_outside_of_the_folder(folder, bomb):
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    (folder.parent / "shard.safetensors").write_bytes(bomb.zip)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"lm_head.weight": "../shard.safetensors"}})
    )


def name_it_in_the_configuration(folder, bomb):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": "adapter_model.bin"}))
    (folder / "adapter_model.bin").write_bytes(bomb.zip)


def bring_an_adapter_along(folder, bomb):
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x", "r": 4, "target_modules": ["q_proj"]})
    )
    (folder / "adapter_model.bin").write_bytes(bomb.zip)


DISGUISES = {
    hide_as_safetensors: "no safetensors file but a pickle, which can run code",
    hide_old_pickle_as_safetensors: "no safetensors file but something else",
    hide_archive_as_safetensors: "no safetensors file but a ZIP archive as torch.save writes it",
    leave_as_bin: "only pickled weights (pytorch_model.bin)",
    leave_as_pt: "only pickled weights (consolidated.00.pth)",
    leave_an_index_of_pickles: "only pickled weights (pytorch_model",
    hide_behind_a_safetensors_index: "model.safetensors.index.json asks for the weights 'shard.bin'",
    hide_outside_of_the_folder: "model.safetensors.index.json asks for the weights '../shard.safetensors'",
    name_it_in_the_configuration: "config.json asks for the weights 'adapter_model.bin'",
    bring_an_adapter_along: "holds a PEFT adapter as well",
}


@pytest.mark.parametrize("disguise", DISGUISES, ids=lambda disguise: disguise.__name__)
def test_pickled_weights_of_a_model_are_refused_before_they_are_read(disguise, tiny_model, bomb, tmp_path):
    """A pickle from a stranger runs as the user, with all of the user's files and tokens."""
    import simpo_workbench as wb

    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    disguise(folder, bomb)
    with pytest.raises(WorkbenchError) as error:
        wb.load_model(wb.RunConfig.from_dict({"model": {"name": str(folder), "load_in": "fp32"}}).model)
    assert DISGUISES[disguise] in sentence(error)
    assert not bomb.marker.exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("adapter_model.bin", "zip", "pickled weights (adapter_model.bin) are not loaded"),
        ("adapter_model.pt", "pickle", "has no adapter_model.safetensors"),
        ("adapter_model.safetensors", "pickle", "no safetensors file but a pickle"),
        ("adapter_model.safetensors", "zip", "no safetensors file but a ZIP archive"),
    ],
)
def test_pickled_weights_of_an_adapter_are_refused_before_they_are_read(
    name, content, said, tiny_model, bomb, tmp_path
):
    """Adapters are what people pass on to each other most."""
    import simpo_workbench as wb

    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}))
    (folder / name).write_bytes(getattr(bomb, content))
    with pytest.raises(WorkbenchError) as error:
        wb.load_model(wb.RunConfig.from_dict({"model": {"name": tiny_model, "load_in": "fp32"}}).model, adapter=folder)
    assert said in sentence(error)
    assert not bomb.marker.exists()


def test_an_adapter_whose_configuration_names_a_pickle_is_refused(tiny_model, bomb, tmp_path):
    """Some kinds of adapters start from a file of their author's choice, which is unpickled."""
    from simpo_workbench.engine.model.weight_files import require_adapter

    (tmp_path / "start.pt").write_bytes(bomb.zip)
    shutil.copy(Path(tiny_model) / "model.safetensors", tmp_path / "adapter_model.safetensors")
    config = {
        "peft_type": "MULTITASK_PROMPT_TUNING",
        "prompt_tuning_init": "AVERAGE_SOURCE_TASKS",
        "prompt_tuning_init_state_dict_path": str(tmp_path / "start.pt"),
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(WorkbenchError) as error:
        require_adapter(tmp_path)
    assert "is of the kind 'MULTITASK_PROMPT_TUNING': only plain LoRA adapters" in sentence(error)
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "megatron_config": {"a": 1}, "megatron_core": "antigravity"})
    )
    with pytest.raises(WorkbenchError, match="only plain LoRA adapters"):
        require_adapter(tmp_path)
    assert not bomb.marker.exists()


@pytest.mark.parametrize("name", ["model.gguf", "model.bin", "model.pt"])
def test_a_pickle_given_as_a_model_file_is_refused(name, bomb, tmp_path, monkeypatch):
    """A file name says nothing about what is inside."""
    import simpo_workbench as wb

    monkeypatch.setenv("SIMPO_WORKBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / name).write_bytes(bomb.pickle)
    with pytest.raises(WorkbenchError) as error:
        wb.load_model(wb.RunConfig.from_dict({"model": {"name": str(tmp_path / name)}}).model)
    assert ("it does not begin as one" if name.endswith(".gguf") else "is a file: expected a model folder") in sentence(
        error
    )
    assert not bomb.marker.exists()


# --- code that comes with a model


def with_code(tiny_model, folder, **changes):
    """A copy of the tiny model whose code.py makes a marker, and whose JSON files are changed."""
    folder = Path(shutil.copytree(tiny_model, folder))
    for name, values in changes.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
    marker = folder.parent / "it-ran"
    (folder / "code.py").write_text(
        f"open({str(marker)!r}, 'w')\nclass CodedConfig: pass\nclass CodedModel: pass\nclass CodedTokenizer: pass\n"
    )
    return folder, marker


def test_a_model_that_needs_its_own_code_is_refused_by_name(tiny_model, tmp_path, monkeypatch):
    """The sentence must say what it is about: otherwise the user looks for the switch that turns it on."""
    import simpo_workbench as wb

    folder, marker = with_code(
        tiny_model,
        tmp_path / "coded",
        config={
            "model_type": "coded",
            "auto_map": {"AutoConfig": "code.CodedConfig", "AutoModelForCausalLM": "code.CodedModel"},
        },
    )
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    with pytest.raises(WorkbenchError) as error:
        wb.load_model(wb.RunConfig.from_dict({"model": {"name": str(folder), "load_in": "fp32"}}).model)
    text = sentence(error)
    assert (
        "cannot be loaded: it needs code of its own (code.CodedConfig in config.json), and code from a model is never"
        " run here" in text
    )
    assert "trust_remote_code" not in text
    assert not marker.exists()


def test_where_transformers_knows_the_model_the_code_beside_it_is_left_alone(tiny_model, tmp_path, monkeypatch):
    """Many good models carry code for old versions; they load, and their code does not run."""
    import simpo_workbench as wb

    maps = {
        "config": {"auto_map": {"AutoConfig": "code.CodedConfig", "AutoModelForCausalLM": "code.CodedModel"}},
        "tokenizer_config": {"auto_map": {"AutoTokenizer": ["code.CodedTokenizer", None]}},
    }
    folder, marker = with_code(tiny_model, tmp_path / "coded", **maps)
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    with wb.load_model(wb.RunConfig.from_dict({"model": {"name": str(folder), "load_in": "fp32"}}).model) as loaded:
        assert type(loaded.model).__module__.startswith("transformers.")
        assert type(loaded.tokenizer).__module__.startswith("transformers.")
    assert not marker.exists()


@pytest.mark.parametrize("section", ["model", "run", None])
def test_no_configuration_can_allow_code(section):
    """A YAML file that is passed on must not decide for the one who gets it."""
    text = f"{section}:\n  trust_remote_code: true\n" if section else "trust_remote_code: true\n"
    with pytest.raises(WorkbenchError, match="code from a model repository is never run"):
        RunConfig.from_yaml_text(text)


# --- chat templates


def tokenizer(template):
    """As much of a tokenizer as the check asks for."""
    return SimpleNamespace(
        get_chat_template=lambda: template, special_tokens_map={"bos_token": "<s>"}, name_or_path="me/model"
    )


HOSTILE_TEMPLATES = {
    "{% for i in range(10**9) %}x{% endfor %}": "loops or counts without bounds",
    "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}": (
        "needs more than 3 s"
    ),
    "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}": (
        "needs more than"
    ),
    "{{ 'x' * 10**10 }}": "needs more than",
    "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}": "writes more than 4,000,000 characters",
    "{% for a in range(9999) %}{{ messages[0].content * 9999 }}{% endfor %}": "writes more than 4,000,000 characters",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": "reaches for what no template may touch",
    "{{ messages.append(1) }}": "reaches for what no template may touch",
    "{{ raise_exception.__globals__.items() }}": "reaches for what no template may touch",
    "{{ ('%0999999999d' % 1) }}": "needs more than",
    "{{ '{:>9999999999}'.format(1) }}": "",
    "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}": "is nested without bounds",
    "{{" + "(" * 3000 + "1" + ")" * 3000 + "}}": "",
    "x" * 1_000_001: "is 1,000,001 characters",
}


@pytest.mark.parametrize("template", HOSTILE_TEMPLATES, ids=range(len(HOSTILE_TEMPLATES)))
def test_a_template_that_eats_the_machine_is_refused_in_one_sentence(template):
    """It is rendered for every pair, in the process that trains, or in the user's kernel: there it could not be
    stopped.
    """
    from simpo_workbench.engine.encode.template_check import require_bounded_template

    said = HOSTILE_TEMPLATES[template]
    try:
        require_bounded_template(tokenizer(template), {})
    except WorkbenchError as error:
        assert "\n" not in str(error)
        assert said in str(error)
        assert "data.chat_template" in str(error)
    else:
        assert said == "", "only what Jinja itself refuses at once may pass"


def test_a_hostile_template_costs_its_reader_no_memory():
    """Neither the process that asks nor the one that tries may fill the machine."""
    code = (
        "from types import SimpleNamespace\nfrom simpo_workbench.engine.encode.template_check import"
        " require_bounded_template\nfrom simpo_workbench.base.errors import WorkbenchError\n"
        "one = SimpleNamespace(get_chat_template=lambda: \"{% set x = 'x' * 9**9 %}{{ x ~ x ~ x }}\","
        " special_tokens_map={}, name_or_path='m')\n"
        "try:\n    require_bounded_template(one, {})\nexcept WorkbenchError as error:\n    print(error)\n"
        # of this process by its own mark: getrusage hands on what the process had that started it
        "own = int(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])\n"
        "print(max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) < 700_000, 'torch' in sys.modules)\n"
    )
    said, facts = within_memory(1000, code).splitlines()
    assert "needs more than" in said
    assert facts == "True False"


def test_a_template_that_found_a_way_out_of_the_sandbox_would_be_in_a_bare_room(tmp_path, monkeypatch):
    """The process that tries a template writes no file, gets no memory, and was not told the user's token."""
    from simpo_workbench.engine.encode import template_check, template_probe

    asked = []
    run = template_check.subprocess.run
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr(
        template_check.subprocess, "run", lambda *args, **kwargs: asked.append(kwargs) or run(*args, **kwargs)
    )
    template_check.require_bounded_template(tokenizer("a template of its own"), {})
    assert "HF_TOKEN" not in asked[0]["env"]
    code = (
        "import runpy, sys\nrunpy.run_path(sys.argv[1])['limit_this_process']()\ndef tried(do):\n    try:\n       "
        " do()\n    except (OSError, MemoryError) as error:\n        return type(error).__name__\n    return"
        f" 'done'\ndef write():\n    with open({str(tmp_path / 'x')!r}, 'w') as file:\n       "
        " file.write('x')\nprint(tried(write), tried(lambda: bytes(10**9)))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, template_probe.__file__], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["OSError", "MemoryError"], done.stderr


GOOD_TEMPLATES = {
    "generation block": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else"
        " %}{{ m.content }}{% endif %}{% endfor %}"
    ),
    "break and tojson": (
        "{% for m in messages %}{{ m | tojson(indent=1) }}{% if loop.index > 5 %}{% break %}{% endif %}{% endfor %}"
    ),
    "date": "{{ strftime_now('%d %B %Y') }}{% for m in messages %}{{ m['content'] | trim }}{% endfor %}",
    "dict and namespace": (
        "{% set ns = namespace(seen=dict(a=1)) %}{% for m in messages %}{% set ns.last = m.content %}{{ ns.last }}{%"
        " endfor %}"
    ),
    "refuses systems": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}{% for m in messages %}{{ m.content"
        " }}{% endfor %}"
    ),
    "tools": (
        "{% if tools is not none and tools %}x{% endif %}{% for m in messages %}{{ bos_token }}{{"
        " m.content.split('</think>')[-1].lstrip() }}{% endfor %}"
    ),
    "many turns reversed": "{% for m in messages[::-1] %}{{ m.content }}{% endfor %}",
}


@pytest.mark.parametrize("kind", GOOD_TEMPLATES)
def test_ordinary_templates_pass(kind):
    """Everything that the templates of real models use must stay usable."""
    from simpo_workbench.engine.encode.template_check import require_bounded_template

    require_bounded_template(tokenizer(GOOD_TEMPLATES[kind]), {"enable_thinking": False})


def test_the_templates_of_the_tests_pass_and_are_tried_once(monkeypatch):
    """A notebook that scores ten times must not wait ten times."""
    import tiny

    from simpo_workbench.engine.encode import template_check
    from simpo_workbench.engine.encode.tokens import ChatEncoder

    started = []
    run = template_check.subprocess.run
    monkeypatch.setattr(
        template_check.subprocess, "run", lambda *args, **kwargs: started.append(1) or run(*args, **kwargs)
    )
    template_check._why_refused.cache_clear()
    for _ in range(3):
        for name in tiny.TEMPLATES:
            ChatEncoder(tiny.tokenizer(name))
    assert len(started) == len(tiny.TEMPLATES)


def test_an_encoder_is_not_made_with_a_hostile_template():
    """The check stands where every use of a template begins: training, scoring, sampling, explaining."""
    import tiny

    from simpo_workbench.engine.encode.tokens import ChatEncoder

    hostile = tiny.tokenizer()
    hostile.chat_template = "{{ 'x' * 10**10 }}"
    with pytest.raises(WorkbenchError, match="The chat template needs more than"):
        ChatEncoder(hostile)
    hostile.chat_template = {"tool_use": "x"}
    with pytest.raises(WorkbenchError, match="has no usable chat template"):
        ChatEncoder(hostile)


# --- names and places of runs

HOSTILE_NAMES = [
    *(
        "",
        ".",
        "..",
        "../up",
        "a/../../b",
        "/etc",
        "a\\b",
        "a\0b",
        ".hidden",
        ".reserve",
        "~root",
        "-rf",
        "a b",
        "a\nb",
        "$HOME",
        "%2e%2e",
        "a:b",
        "a|b",
        "*",
    ),
    *("CON", "con", "nul", "NUL.txt", "Aux", "PRN.1", "COM1", "com9.log", "LPT1", "trailing."),
    *(
        "\uff41\uff42",
        "\u0430dmin",
        "run\u200b1",
        "run\u202etxt",
        "e\u0301",
        "\u2024\u2024",
        "\u2215etc",
        "ｒｕｎ",
        "run\ufeff",
        "\ud800",
    ),
    *("x" * 101, "x" * 1_000_000, "../" * 300_000),
]


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=range(len(HOSTILE_NAMES)))
def test_a_hostile_name_makes_no_folder_and_finds_none(name, tmp_path):
    """A run is a folder that is written, copied and deleted by its name."""
    root = tmp_path / "deep" / "runs"
    with pytest.raises(WorkbenchError) as error:
        new_run_folder(root, name, "stem")
    assert "run.name" in sentence(error)
    assert not root.exists()
    with pytest.raises(WorkbenchError) as error:
        find_run_folder(name, root)
    assert "There is no run" in sentence(error)
    assert sorted(path.name for path in tmp_path.rglob("*")) == []


@pytest.mark.parametrize("name", [None, 7, b"bytes", ["a"]])
def test_a_name_that_is_no_text_is_refused(name):
    """Neither a traceback nor a folder called None."""
    with pytest.raises(WorkbenchError, match="run.name = .* is not usable"):
        check_name(name)
    with pytest.raises(WorkbenchError, match="A run is named by a text or a path"):
        find_run_folder(name)


@pytest.mark.parametrize("name", ["console", "con-1", "nulls", "auxiliary", "com10", "x.con", "prn1", "a.b"])
def test_names_that_only_begin_like_a_device_are_fine(name):
    """Half of the dictionary must not be forbidden."""
    assert check_name(name) == name


def make_run(path):
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("")
    return path


def test_a_link_out_of_the_root_is_no_run(tmp_path):
    """Whoever may put a link among the runs could have another folder written to, listed, or removed."""
    root, elsewhere = tmp_path / "runs", make_run(tmp_path / "elsewhere" / "one")
    make_run(root / "real")
    (root / "linked").symlink_to(elsewhere)
    (root / "circle").symlink_to(root / "circle")
    assert run_names(root) == ["real"]
    with pytest.raises(WorkbenchError) as error:
        find_run_folder("linked", root)
    assert "is a link to" in sentence(error)
    assert str(elsewhere) in str(error.value)
    with pytest.raises(WorkbenchError, match="is a link to"):
        find_run_folder(root / "linked")
    with pytest.raises(WorkbenchError, match="There is a run 'linked'"):
        new_run_folder(root, "linked", "stem")
    assert sorted(path.name for path in elsewhere.iterdir()) == ["config.yaml"]
    assert find_run_folder(elsewhere).path == elsewhere  # the folder itself may be anywhere


def test_a_root_that_is_a_link_is_the_users_own_choice(tmp_path):
    """Runs often lie on a bigger disk, and a name for the newest one is handy."""
    make_run(tmp_path / "disk" / "one")
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "latest").symlink_to("one")
    assert find_run_folder("one", tmp_path / "runs").name == "one"
    assert find_run_folder("latest", tmp_path / "runs").name == "latest"
    assert sorted(run_names(tmp_path / "runs")) == ["latest", "one"]


@pytest.mark.parametrize("name", ["metrics.jsonl", "log.txt", "config.yaml", "status.json"])
def test_a_file_of_a_run_that_is_a_link_is_refused(name, tmp_path):
    """A run folder that was unpacked from an archive could append its log to the user's .bashrc."""
    folder, victim = make_run(tmp_path / "runs" / "one"), tmp_path / "victim"
    victim.write_text("")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(victim)
    with pytest.raises(WorkbenchError) as error:
        find_run_folder("one", tmp_path / "runs")
    assert f"{name} in the run folder" in sentence(error)


# --- configurations


def test_a_yaml_file_that_unfolds_without_bounds_is_refused_in_little_memory(tmp_path):
    """Nine lines that stand for a billion entries."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"] + [
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)
    ]
    (tmp_path / "laughs.yaml").write_text("\n".join(lines))
    code = LOAD.replace("pairs import load_pairs", "config import RunConfig").replace(
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


# --- data


def bomb_of(megabytes, path):
    """A gzip file that unfolds to so many megabytes of blanks: many members, each of ten."""
    path.write_bytes(gzip.compress(b" " * 10_000_000, 9) * (megabytes // 10))
    return path


def test_a_decompression_bomb_is_stopped_at_the_stated_limit(tmp_path):
    """One megabyte on disk must not become one gigabyte in the kernel that holds the user's work."""
    path = bomb_of(1000, tmp_path / "bomb.jsonl.gz")
    said = within_memory(700, LOAD, path)
    assert said.startswith("refused: bomb.jsonl.gz (")
    assert f"at most {pair_files.MOST_EXPANSION} times its size" in said
    assert "unpack it yourself" in said


def test_an_ordinary_compressed_file_is_read(tmp_path):
    """Very repetitive pairs are packed very well, and are still pairs."""
    rows = "".join(
        json.dumps({"prompt": f"p{n}", "chosen": "yes " * 500, "rejected": "no " * 500}) + "\n" for n in range(2000)
    )
    (tmp_path / "a.jsonl.gz").write_bytes(packed := gzip.compress(rows.encode(), 9))
    assert len(rows) > 100 * len(packed)
    assert len(load_pairs(tmp_path / "a.jsonl.gz")) == 2000


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_a_row_of_two_hundred_megabytes_is_refused_in_bounded_memory(kind, tmp_path):
    """It is counted like every other row that cannot be used, and the good one beside it is kept."""
    path, huge = tmp_path / f"a.{kind}", "x" * 200_000_000
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    with open(path, "w") as file:
        if kind == "csv":
            file.write(f"prompt,chosen,rejected\np,{huge},b\nq,a,b\n")
        else:
            rows = [f'{{"prompt": "p", "chosen": "{huge}", "rejected": "b"}}', json.dumps(good)]
            file.write(f"[{', '.join(rows)}]" if kind == "json" else "\n".join(rows))
    del huge
    said = within_memory(1200, LOAD, path)
    path.unlink()
    assert "2 rows read, 1 kept, 1 refused" in said
    assert ("field larger than field limit (10000000)" if kind == "csv" else "too long 1") in said
    assert len(said) < 400


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": "p", "chosen": "a", "rejected": "b", "x": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"prompt": ' + '{"a": ' * 5000 + "1" + "}" * 5000 + ', "chosen": "a", "rejected": "b"}',
        "[" * 1_000_000,
        '{"a": ' * 200_000,
    ],
    ids=range(4),
)
def test_deep_nesting_is_a_refused_row_and_no_crash(line, tmp_path):
    """One such row must not cost the others, let alone the interpreter."""
    good = json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"})
    (tmp_path / "a.jsonl").write_text(f"{good}\n{line}\n")
    report = load_pairs(tmp_path / "a.jsonl").report()
    assert (report.kept, report.refused) == (1, {"unreadable": 1})


@pytest.mark.parametrize("value", ["9" * 100_000, "-" + "9" * 5000, "1e999999", "1" + "0" * 400, "0." + "1" * 100_000])
def test_a_huge_number_beside_a_pair_does_no_harm(value, tmp_path):
    """Python refuses to write out numbers of more than 4300 digits, in the middle of whatever it was doing."""
    (tmp_path / "a.jsonl").write_text(f'{{"prompt": "p", "chosen": "a", "rejected": "b", "x": {value}}}\n')
    pairs = load_pairs(tmp_path / "a.jsonl")
    assert len(pairs) == 1
    pairs.to_frame().to_parquet(tmp_path / "a.parquet")


def test_rows_with_columns_of_their_own_do_not_make_an_endless_table(tmp_path):
    """Every pair gets a cell in every column: ten thousand rows with a key each would be a hundred million cells."""
    (tmp_path / "a.jsonl").write_text(
        "".join(
            json.dumps({"prompt": f"p{n}", "chosen": "a", "rejected": "b", f"id-{n}": 1}) + "\n" for n in range(2000)
        )
    )
    with pytest.raises(WorkbenchError) as error:
        load_pairs(tmp_path / "a.jsonl")
    assert "more than 1,000 different columns, at line 998" in sentence(error)


def test_a_csv_cell_that_python_would_have_to_read_is_bounded(tmp_path):
    """Reading a list as Python prints it takes a hundred times its length in memory."""
    cell = "[" + ", ".join("{'role': 'user', 'content': 'x'}" for _ in range(100_000)) + "]"
    (tmp_path / "a.csv").write_text(f'prompt,chosen,rejected\n"{cell}",a,b\nq,a,b\n')
    assert "unreadable 1" in within_memory(400, LOAD, tmp_path / "a.csv")


# --- readers of our own files, and of anybody's


JSON_KEYS = [
    "prompt",
    "chosen",
    "rejected",
    "role",
    "content",
    "from",
    "value",
    "messages",
    "system",
    "input",
    "output",
    "history",
    "label",
]
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["user", "assistant", "system", "\n\nHuman: a\n\nAssistant: b"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(JSON_KEYS) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(JSON_VALUES)
@example([{"prompt": [], "chosen": [], "rejected": []}])
@example([[["a"]]])
@example([{"prompt": {"role": "user", "content": [{"type": "text", "text": None}]}, "chosen": "a", "rejected": "b"}])
def test_pairs_from_any_json_value_are_pairs_or_a_sentence(value):
    """Whatever a data set holds, its reader speaks in its own words."""
    try:
        pairs = load_pairs(
            [value] if isinstance(value, str) else value
        )  # a text would be looked up as a file, then on the hub
    except WorkbenchError as error:
        assert str(error)
    else:
        assert len(pairs.df) == len(pairs) > 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(JSON_VALUES, max_size=4),
    suffix=st.sampled_from(["jsonl", "json", "csv", "jsonl.gz"]),
    cut=st.integers(0, 12),
)
def test_files_of_any_json_values_are_pairs_or_a_sentence(rows, suffix, cut, tmp_path):
    """The same for a file, also for one whose end is missing."""
    text = json.dumps(rows) if suffix == "json" else "".join(json.dumps(row) + "\n" for row in rows)
    text = text[: len(text) - cut]
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    try:
        pairs = load_pairs(path)
    except WorkbenchError as error:
        assert "\n" not in str(error)
    else:
        assert pairs.report().rows_read == len(pairs) + sum(pairs.report().refused.values())


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


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=80)
    | st.lists(JSON_VALUES.map(json.dumps), max_size=4).map(lambda lines: "\n".join(lines).encode())
)
@example(content=b'{"a": ' * 100_000)
@example(content=b'{"a": ' * 100_000 + b"\n{}\n")
@example(content=b"9" * 5000 + b"\n{}\n")
@example(content=b"\xff\xfe\n\0\n{}")
def test_any_metrics_file_is_records_or_a_sentence(content, tmp_path):
    """A damaged line in the metrics of a finished run must not hide all of its charts behind a traceback."""
    (tmp_path / "metrics.jsonl").write_bytes(content)
    try:
        records = read_jsonl(tmp_path / "metrics.jsonl")
    except WorkbenchError as error:
        assert "metrics.jsonl, line" in str(error)
        assert len(str(error)) < 400
    else:
        assert all(isinstance(record, dict) for record in records)


def test_refusals_come_soon():
    """All names above together: where one of them took time that grows with its length, this would not come back."""
    started = time.monotonic()
    for name in HOSTILE_NAMES:
        with pytest.raises(WorkbenchError):
            check_name(name)
    assert time.monotonic() - started < 60
