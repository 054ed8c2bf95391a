"""What a user would lose: words that cannot be read.

Contrast by WCAG 2.2 (success criterion 1.4.3), computed from the style sheet in JupyterLab's own themes.
"""

import itertools
import re
import sysconfig
from pathlib import Path

import pytest

from simpo_workbench.charts.runs import RUN_COLORS
from simpo_workbench.charts.subplots import COLORS
from simpo_workbench.ui import parts

LEAST = 4.5
STYLE = re.sub(
    r"/\*.*?\*/", "", (Path(parts.__file__).parent / "style.css").read_text(encoding="utf-8"), flags=re.DOTALL
)
THEMES = Path(sysconfig.get_path("data")) / "share/jupyter/lab/themes/@jupyterlab"
TEXTS = ["ink", "muted", "chosen", "rejected", "lead", "answers", "attention", "failure"]
DARK = '.swb[data-swb-theme="dark"]'


def rules():
    """(selector, {property: value}) of every rule of the style sheet."""
    for selector, body in re.findall(r"([^{}]+)\{([^{}]*)\}", STYLE):
        yield " ".join(selector.split()), dict(re.findall(r"([\w-]+)\s*:\s*([^;]+?)\s*(?:;|$)", body))


def variables(theme):
    """All variables as they are in a theme: JupyterLab's, then the panel's own, dark ones over light ones."""
    jupyter = (THEMES / f"theme-{theme}-extension/index.css").read_text(encoding="utf-8")
    known = dict(re.findall(r"(--[\w-]+)\s*:\s*([^;{}]+)", jupyter))
    for selector, body in rules():
        if selector == ".swb" or (theme == "dark" and DARK in selector.split(", ") + selector.split(",")):
            known |= {name: value for name, value in body.items() if name.startswith("--")}
    return known


def value(text, known):
    """A colour as (red, green, blue, alpha), each 0 to 1; a percentage as a share."""
    text = text.strip()
    if found := re.fullmatch(r"var\((--[\w-]+)\s*(?:,(.*))?\)", text):
        name, otherwise = found.groups()
        return value(known.get(name, otherwise), known)
    if found := re.fullmatch(r"color-mix\(in srgb, (.+?) (\S+), (.+)\)", text):
        first, share, second = (value(part, known) for part in found.groups())
        alpha = share * first[3] + (1 - share) * second[3]
        return (
            *[
                (share * first[3] * a + (1 - share) * second[3] * b) / alpha
                for a, b in zip(first[:3], second[:3], strict=True)
            ],
            alpha,
        )
    if text.endswith("%"):
        return float(text[:-1]) / 100
    if found := re.fullmatch(r"rgba\((.+)\)", text):
        red, green, blue, alpha = map(float, found[1].split(","))
        return red / 255, green / 255, blue / 255, alpha
    digits = {"white": "ffffff", "black": "000000"}.get(text, text.removeprefix("#"))
    digits = digits if len(digits) == 6 else "".join(digit * 2 for digit in digits)
    return *[int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)], 1.0


def is_color(text):
    return text.startswith(("var(", "color-mix(", "#"))


def over(color, ground):
    """A colour as it is seen on an opaque ground."""
    return *[color[3] * a + (1 - color[3]) * b for a, b in zip(color[:3], ground[:3], strict=True)], 1.0


def contrast(text, ground):
    text = over(text, ground)
    low, high = sorted(
        sum(weight * linear(part) for weight, part in zip((0.2126, 0.7152, 0.0722), color, strict=False))
        for color in (text, ground)
    )
    return (high + 0.05) / (low + 0.05)


def linear(part):
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4


def grounds(known):
    """{where: colour} of everything that any text may stand on."""
    page = value("var(--swb-ground)", known)
    found = {"the page": page, "a raised button": over(value("var(--swb-raised)", known), page)}
    for selector, body in rules():
        if ".swb-notice" in selector or "tbody tr" in selector:
            found |= (
                {selector: over(value(body["background"], known), page)} if is_color(body.get("background", "")) else {}
            )
    return found


def test_the_measure_is_right():
    assert contrast(value("#000", {}), value("white", {})) == pytest.approx(21)
    assert contrast(value("#777777", {}), value("#fff", {})) == pytest.approx(4.48, abs=0.005)
    assert value("color-mix(in srgb, #ff0000 25%, #0000ff)", {}) == pytest.approx((0.25, 0, 0.75, 1))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_is_readable_on_every_ground_of_the_panels(theme):
    known = variables(theme)
    found = grounds(known)
    assert len(found) >= 6, "notices, hovered and selected rows"
    poor = {
        f"{name} on {where}": round(ratio, 2)
        for (where, ground), name in itertools.product(found.items(), TEXTS)
        if (ratio := contrast(value(f"var(--swb-{name})", known), ground)) < LEAST
    }
    assert poor == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_has_a_ground_of_its_own_is_readable_on_it(theme):
    """Such as a primary button, or the marks of differences: their own text colour, or the panel's."""
    known = variables(theme)
    page = value("var(--swb-ground)", known)
    poor = {}
    for selector, body in rules():
        ground = body.get("background", body.get("background-color", ""))
        text = body.get("color", "inherit")
        if not is_color(ground) or (
            "color" not in body and not ground.startswith("color-mix(")
        ):  # a plain colour without words is a bar
            continue
        text = "var(--swb-ink)" if text in ("inherit", "currentcolor") else text
        ratio = contrast(value(text, known), over(value(ground, known), page))
        if ratio < LEAST:
            poor[selector] = round(ratio, 2)
    assert poor == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_charts_and_panels_speak_the_same_colours_on_the_same_ground(theme):
    known = variables(theme)
    names = [name for name in TEXTS if name != "ink"]  # JupyterLab's ink is translucent
    assert {name: value(f"var(--swb-{name})", known) for name in names} == {
        name: value(COLORS[theme][name], {}) for name in names
    }
    assert value("var(--swb-ground)", known) == value(COLORS[theme]["ground"], {})


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_of_a_chart_is_readable(theme):
    colors = {name: color for name, color in COLORS[theme].items() if name not in ("grid", "ground")}
    colors |= {f"run {number}": color for number, color in enumerate(RUN_COLORS[theme])}
    ground = value(COLORS[theme]["ground"], {})
    assert {name: color for name, color in colors.items() if contrast(value(color, {}), ground) < LEAST} == {}
