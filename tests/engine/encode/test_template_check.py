"""What a user would lose: the machine's memory and time, to a chat template that loops, grows or escapes."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from hostile_inputs import within_memory

from simpo_workbench.base.errors import WorkbenchError

pytestmark = pytest.mark.timeout(120)  # so that what hangs fails


def tokenizer(template):
    """As much of a tokenizer as the check asks for."""
    return SimpleNamespace(
        get_chat_template=lambda: template, special_tokens_map={"bos_token": "<s>"}, name_or_path="me/model"
    )


HOSTILE_TEMPLATES = {
    "{% for i in range(10**9) %}x{% endfor %}": "loops or counts without bounds",
    "{% for a in range(9999) %}" * 3 + "{% endfor %}" * 3: "needs more than 3 s",
    "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}": (
        "needs more than"
    ),
    "{{ 'x' * 10**10 }}": "needs more than",
    "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}": "writes more than 4,000,000 characters",
    "{% for a in range(9999) %}{{ messages[0].content * 9999 }}{% endfor %}": "writes more than 4,000,000 characters",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": "accesses what no template may access",
    "{{ messages.append(1) }}": "accesses what no template may access",
    "{{ raise_exception.__globals__.items() }}": "accesses what no template may access",
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
    from simpo_workbench.engine.trial import limited_process, process_limits

    asked = []
    run = limited_process.subprocess.run
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr(
        limited_process.subprocess, "run", lambda *args, **kwargs: asked.append(kwargs) or run(*args, **kwargs)
    )
    template_check.require_bounded_template(tokenizer("a template of its own"), {})
    assert "HF_TOKEN" not in asked[0]["env"]
    code = (
        "import runpy, sys\nrunpy.run_path(sys.argv[1])['limit_this_process'](*map(int, sys.argv[2:]))\n"
        "def tried(do):\n    try:\n        do()\n    except (OSError, MemoryError) as error:\n"
        "        return type(error).__name__\n    return 'done'\n"
        f"def write():\n    with open({str(tmp_path / 'x')!r}, 'w') as file:\n        file.write('x')\n"
        "print(tried(write), tried(lambda: bytes(10**9)))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, process_limits.__file__, *map(str, template_probe.LIMITS)],
        capture_output=True,
        text=True,
        timeout=60,
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
    from simpo_workbench.engine.trial import limited_process

    started = []
    run = limited_process.subprocess.run
    monkeypatch.setattr(
        limited_process.subprocess, "run", lambda *args, **kwargs: started.append(1) or run(*args, **kwargs)
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
