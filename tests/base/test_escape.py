"""Foreign text as markup: a prompt with a tag in it must stay a prompt."""

import json

import pytest

from simpo_workbench.base.escape import escape, json_for_script, plotly_text


def test_text_cannot_leave_an_element_or_an_attribute():
    assert escape("""<b a="1" c='2'>&amp;""") == "&lt;b a=&quot;1&quot; c=&#x27;2&#x27;&gt;&amp;amp;"


def test_labels_are_escaped_cut_and_wrapped_without_breaking_an_entity():
    assert plotly_text("<i>\n one") == "&lt;i&gt; one"
    assert plotly_text("aaaa & bbbb", width=6) == "aaaa &amp;<br>bbbb"
    assert plotly_text("'$x$' \"\u202e<") == "'&#36;x&#36;' \"\ufffd&lt;"
    assert plotly_text("x" * 400, width=400) == "x" * 299 + "…"


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", "<!--", "]]>", "a\u2028b\u2029", "Störche 🦢 &", '"\\']
)
def test_json_in_a_page_is_inert_and_means_the_same(text):
    inside = json_for_script(json.dumps({"text": text}, ensure_ascii=False))
    assert not set("<>&\u2028\u2029") & set(inside)
    assert json.loads(inside) == {"text": text}
