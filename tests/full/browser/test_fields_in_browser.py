"""The form's controls alone in a page, before a kernel that is busy.

What a user would lose: settings that a late or too large message takes back.
"""

from pathlib import Path

import pytest

from simpo_workbench.config.presets import preset
from simpo_workbench.ui.parts import fields
from simpo_workbench.ui.parts.fields import Fields, all_fields
from simpo_workbench.ui.setup.config_code import value_at

SCRIPT = Path(fields.__file__).with_name("fields.js")
pytestmark = [pytest.mark.browser]
DRAW = """async ([code, sections, values]) => {
    const { default: { render } } = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
    const state = { sections, values, remarks: {} }, listeners = {};
    window.sent = [];
    window.model = {
        get: name => state[name],
        set: (name, value) => { state[name] = value; },
        save_changes: () => window.sent.push({ typed: state.values }),
        send: message => window.sent.push(message),
        on: (name, listener) => { listeners[name] = listener; },
        off: () => {},
    };
    window.kernel = { values: values => { state.values = values; listeners["change:values"](); }, answer: message => listeners["msg:custom"](message) };
    render({ model: window.model, el: document.body });
}"""


@pytest.fixture
def page(chromium):
    page = chromium.new_page()
    page.evaluate(DRAW, [SCRIPT.read_text(encoding="utf-8"), Fields().sections, said(preset("demo"))])
    yield page
    page.close()


def said(config):
    return {path: field.text_of(value_at(config, path)) for path, field in all_fields().items()}


def type_into(page, path, text):
    page.fill(f"[data-path='{path}'] input:not([type='range'])", text)
    page.press(f"[data-path='{path}'] input:not([type='range'])", "Tab")


def shown(page, path):
    return page.input_value(f"[data-path='{path}'] input:not([type='range'])")


def test_only_what_was_typed_is_sent(page):
    type_into(page, "loss.beta", "4")
    type_into(page, "lora.r", "8")
    assert [message["typed"] for message in page.evaluate("sent")] == [{"loss.beta": "4"}, {"lora.r": "8"}]


def test_what_was_typed_stays_while_a_busy_kernel_answers_earlier_things(page):
    type_into(page, "loss.beta", "4")
    type_into(page, "loss.beta", "5")
    first, second = page.evaluate("sent")
    chosen = said(preset("seed-article"))
    page.evaluate("kernel.values", chosen)  # a preset, chosen before β was typed
    assert (shown(page, "loss.beta"), shown(page, "lora.r")) == ("5", "8")
    page.evaluate("kernel.values", {**chosen, "loss.beta": "4"})
    page.evaluate("kernel.answer", {"heard": first["number"], "view": first["view"]})
    assert shown(page, "loss.beta") == "5"
    page.evaluate("kernel.values", {**chosen, "loss.beta": "5"})
    page.evaluate("kernel.answer", {"heard": second["number"], "view": second["view"]})
    page.evaluate("kernel.values", chosen)
    assert shown(page, "loss.beta") == "2"


def test_typing_the_old_value_again_is_sent_although_the_kernel_has_not_answered(page):
    type_into(page, "loss.beta", "4")
    type_into(page, "loss.beta", "2")
    assert [message["typed"] for message in page.evaluate("sent")] == [{"loss.beta": "4"}, {"loss.beta": "2"}]
