"""What a user would lose: a prompt that carries something of the pair before it, or that the sampler would render
otherwise.
"""

import pytest
import tiny

from simpo_workbench.engine.encode import chat_rendering
from simpo_workbench.engine.encode.chat_rendering import render_all

USER = {"role": "user", "content": "What is the capital of France?"}
ANSWER = {"role": "assistant", "content": " Paris. <b>&amp;</b> {{ 7 * 7 }}\n"}
CONVERSATIONS = [
    [USER],
    [USER, ANSWER, USER],
    [USER],
    [{"role": "system", "content": "é\u0301 🗼"}, USER],
    [{"role": "user", "content": ""}],
    [USER, ANSWER],
]

#: Templates with a memory, if they were allowed one: variables set at the top level in some conversations only, lists,
#: macros, namespaces.
SETS = "{% if messages | length > 1 %}{% set many = 'many' %}{% endif %}{{ many if many is defined else 'one' }}"
OVERRIDES = (
    "{% if messages[0]['role'] == 'system' %}{% set bos_token = 'SYSTEM' %}{% set messages = messages[1:] %}{% endif"
    " %}{{ bos_token }}{{ messages | length }}"
)
NAMESPACE = (
    "{% set seen = namespace(turns=0) %}{% for m in messages %}{% set seen.turns = seen.turns + 1 %}{% endfor %}{{"
    " seen.turns }}{{ eos_token }}"
)
MACRO = (
    "{% macro turn(m) %}[{{ m.role }}: {{ m['content'] | trim }}]{% endmacro %}{% for m in messages %}{{ turn(m) }}{%"
    " endfor %}{{ tools is none }}{{ documents }}"
)
ESCAPES = (
    "{% autoescape true %}{{ messages[-1]['content'] }}{% endautoescape %}{{ messages[-1]['content'] }}{{ messages |"
    " tojson }}"
)
GENERATION = (
    "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% if loop.index > 1 %}{% break %}{%"
    " endif %}{% endfor %}"
)
TEMPLATES = {
    **tiny.TEMPLATES,
    "sets": SETS,
    "overrides": OVERRIDES,
    "namespace": NAMESPACE,
    "macro": MACRO,
    "escapes": ESCAPES,
    "generation": GENERATION,
}


def tokenizer_with(template):
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def one_by_one(tokenizer, conversations, add_generation_prompt, **options):
    return [
        tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt, **options)
        for turns in conversations
    ]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"enable_thinking": False}, {"bos_token": "<other>"}], ids=["plain", "option", "special token"]
)
def test_the_texts_are_those_of_one_call_each(name, add_generation_prompt, options):
    tokenizer = tokenizer_with(TEMPLATES[name])
    conversations = [turns for turns in CONVERSATIONS if name != "gemma" or turns[0]["role"] == "user"]
    expected = one_by_one(tokenizer, conversations, add_generation_prompt, **options)
    assert chat_rendering._with_one_context(tokenizer, conversations, add_generation_prompt, options) == expected
    assert render_all(tokenizer, conversations, add_generation_prompt, options) == expected
    assert render_all(tokenizer, conversations[::-1], add_generation_prompt, options) == expected[::-1]


def fail(*arguments):
    raise AssertionError("not the ordinary way")


class OwnTemplate(type(tiny.tokenizer())):
    def apply_chat_template(self, conversation, **kwargs):
        return [text + "!" for text in super().apply_chat_template(conversation, **kwargs)]


class Text(str):
    __slots__ = ()

    def __str__(self):
        return "changed by its own class"


@pytest.mark.parametrize("case", ["option of the call", "more than text", "more keys", "own class", "no private name"])
def test_whatever_is_not_ordinary_takes_the_ordinary_way(case, monkeypatch):
    monkeypatch.setattr(chat_rendering, "_with_one_context", fail)
    tokenizer, conversations, options = tokenizer_with(MACRO), [[USER], [USER, ANSWER]], {}
    if case == "option of the call":
        options = {"documents": [{"title": "a", "text": "b"}]}
    elif case == "more than text":
        conversations = [[USER], [{"role": "user", "content": Text("plain")}]]
    elif case == "more keys":
        conversations = [[USER], [{**USER, "thinking": "hm"}]]
    elif case == "own class":
        tokenizer.__class__ = OwnTemplate
    else:
        monkeypatch.setattr(chat_rendering, "_compile_jinja_template", None)
    expected = tokenizer.apply_chat_template(conversations, tokenize=False, add_generation_prompt=True, **options)
    assert render_all(tokenizer, conversations, True, options) == expected


def test_a_difference_to_the_tokenizers_own_text_is_noticed(monkeypatch):
    """Should a later transformers give templates another variable, its texts are taken and not ours."""
    monkeypatch.setattr(
        chat_rendering, "_with_one_context", lambda tokenizer, conversations, *rest: ["another"] * len(conversations)
    )
    tokenizer = tokenizer_with(tiny.CHATML)
    assert render_all(tokenizer, [[USER], [USER, ANSWER]], True, {}) == one_by_one(
        tokenizer, [[USER], [USER, ANSWER]], True
    )


def test_a_template_stays_in_its_sandbox():
    tokenizer = tokenizer_with("{{ messages.append(1) }}")
    errors = chat_rendering._with_one_context(tokenizer, [[USER], [USER]], True, {})
    assert [type(error).__name__ for error in errors] == ["SecurityError", "SecurityError"]


def test_what_a_template_refuses_is_an_error_in_its_place_and_the_others_are_texts():
    tokenizer = tokenizer_with("{{ raise_exception('no') if messages | length == 2 else messages | length }}")
    texts = render_all(tokenizer, [[USER, ANSWER], [USER], [USER, ANSWER], [USER, ANSWER, USER]], False, {})
    assert [str(text) for text in texts] == ["no", "1", "no", "3"]
    assert [isinstance(text, Exception) for text in texts] == [True, False, True, False]
