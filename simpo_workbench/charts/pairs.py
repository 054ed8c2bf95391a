"""A set of preference pairs in numbers: lengths, length bias, search.

Pure functions: DataFrames in, numbers and plotly figures out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..analysis.scores import Share, share_of
from ..base.format import counted, significant
from .subplots import COLORS, bare, faded, note

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import plotly.graph_objects as go

SIDES = ("prompt", "chosen", "rejected")
#: Fewer pairs than this say nothing about length.
FEW_PAIRS = 20
#: Above this share of pairs with one side longer, the lengths are called one-sided.
ONE_SIDED = 0.6
_HEIGHT = 300
_LONGEST_WORD = 20  # characters per word on average: texts with more are in a language without spaces between words
_BINS = 40
_DASHES = {"prompt": "dot", "chosen": "solid", "rejected": "dash"}


def pair_lengths(pairs) -> pd.DataFrame:
    """DataFrame with one row per pair: pair_id, prompt (as readable text), chosen, rejected, and their lengths.

    The lengths are prompt_length, chosen_length and rejected_length; `.attrs["unit"]` names what was counted: words
    between white space, or characters where the texts have no such words. Tokens would need the model's tokenizer.
    """
    import pandas as pd

    texts = {
        "prompt": [pair.prompt_text for pair in pairs],
        "chosen": [pair.chosen for pair in pairs],
        "rejected": [pair.rejected for pair in pairs],
    }
    words = {side: [len(text.split()) for text in texts[side]] for side in SIDES}
    characters = {side: [len(text) for text in texts[side]] for side in SIDES}
    use_words = sum(map(sum, characters.values())) <= _LONGEST_WORD * sum(map(sum, words.values()))
    counts = words if use_words else characters
    ids = [pair.pair_id for pair in pairs]
    lengths = pd.DataFrame({"pair_id": ids, **texts, **{f"{side}_length": counts[side] for side in SIDES}})
    lengths.attrs["unit"] = "words" if use_words else "characters"
    return lengths


def matches(lengths, query: str) -> np.ndarray:
    """Boolean array, (pairs,): whether prompt, chosen or rejected contain the query, in upper or lower case."""
    import numpy as np

    query = query.strip()
    contained = np.full(len(lengths), not query)
    for side in SIDES if query else ():
        contained |= lengths[side].str.contains(query, case=False, regex=False).to_numpy(dtype=bool)
    return contained


def chosen_longer(lengths) -> Share:
    """The share of pairs whose chosen answer is the longer one. Errors: WorkbenchError without pairs."""
    return share_of(lengths["chosen_length"] > lengths["rejected_length"], lengths.get("prompt"))


def length_bias(lengths) -> tuple[str, str]:
    """(what the lengths are, what they mean for SimPO), each a sentence."""
    longer, n = chosen_longer(lengths), len(lengths)
    alike = int((lengths["chosen_length"] == lengths["rejected_length"]).sum())
    ties = f"; in {counted(alike, 'pair')} both are equally long" if alike else ""
    seen = f"The chosen answer is the longer one in {longer.value:.0%} of the pairs: {longer}{ties}."
    shorter = share_of(lengths["chosen_length"] < lengths["rejected_length"], lengths.get("prompt"))
    even = "SimPO divides by length, so long answers score no better for being long"
    if n < FEW_PAIRS:
        meaning = f"{counted(n, 'pair')} {'is' if n == 1 else 'are'} too few to tell whether length decides."
    elif longer.low > ONE_SIDED:
        meaning = (
            "but here length alone tells most pairs apart, so the model may learn to write more instead of better:"
            " watch the answer length while it trains."
        )
    elif shorter.low > ONE_SIDED:
        meaning = (
            "but here brevity alone tells most pairs apart, so the model will learn to answer more briefly, whether or"
            " not that is better: watch the answer length while it trains."
        )
    else:
        meaning = "and here length alone tells few pairs apart, so there is little of it to learn."
    return seen, f"{even}; {meaning}"


def length_table(lengths) -> list[list[str]]:
    """Rows (side, median, nine in ten up to, longest) of a table of lengths."""
    quantiles = [(side, lengths[f"{side}_length"]) for side in SIDES]
    return [
        [side, significant(values.median()), significant(values.quantile(0.9)), f"{values.max():,}"]
        for side, values in quantiles
    ]


def length_figure(lengths, theme="light") -> go.Figure:
    """plotly Figure of the lengths of prompts, chosen and rejected answers: outlines in shared bins, with medians.

    lengths: DataFrame from `pair_lengths`. The longest hundredth of the texts is counted in the last bin, and the
    figure says so. theme: "light" or "dark".
    """
    import numpy as np
    import plotly.graph_objects as go

    colors, figure, unit = COLORS[theme], go.Figure(), lengths.attrs.get("unit", "words")
    bare(figure, colors, _HEIGHT, f"Length ({unit}), {counted(len(lengths), 'pair')}")
    figure.update_layout(margin={"t": 84, "r": 24, "b": 48, "l": 52}, hovermode="closest")
    if lengths.empty:
        figure.update_xaxes(visible=False).update_yaxes(visible=False)
        note(figure, "comes with the pairs", colors["muted"], x=0.5, y=0.5, xref="paper", yref="paper")
        return figure
    edges, beyond = _edges(np.concatenate([lengths[f"{side}_length"] for side in SIDES]))
    shade = dict(zip(SIDES, (colors["muted"], colors["chosen"], colors["rejected"]), strict=True))
    top = 1
    for side in SIDES:
        values = lengths[f"{side}_length"].to_numpy()
        counts, _ = np.histogram(values.clip(max=edges[-1] - 1), edges)
        top = max(top, int(counts.max()))
        figure.add_scatter(
            name=side,
            x=np.repeat(edges, 2),
            y=np.concatenate([[0], np.repeat(counts, 2), [0]]),
            mode="lines",
            line={"color": shade[side], "width": 1.6, "dash": _DASHES[side]},
            fill="tozeroy",
            fillcolor=faded(shade[side], 0.12),
            hoverinfo="skip",
        )
        figure.add_bar(  # invisible, for the hover text
            name=f"{side}, per bin",
            x=(edges[:-1] + edges[1:]) / 2,
            y=counts,
            width=np.diff(edges),
            opacity=0,
            customdata=np.stack([edges[:-1], edges[1:] - 1], axis=1),
            hovertemplate=f"{side}: %{{y}} with %{{customdata[0]:,}} to %{{customdata[1]:,}} {unit}<extra></extra>",
        )
    figure.update_layout(barmode="overlay", bargap=0)
    figure.update_xaxes(title={"text": unit, "standoff": 6}, range=[edges[0], edges[-1]], tickformat=",d", nticks=8)
    figure.update_yaxes(title="pairs", range=[0, top * 1.05], tickformat=",d", nticks=5, dtick=1 if top <= 5 else None)
    _name_medians(figure, lengths, shade, edges[-1])
    if beyond:
        longest = max(lengths[f"{side}_length"].max() for side in SIDES)
        words = f"{counted(beyond, 'longer text')}, up to {longest:,} {unit}, in the last bin"
        place = {"x": 1, "xref": "paper", "xanchor": "right", "y": 1, "yref": "paper", "yanchor": "bottom"}
        note(figure, words, colors["muted"], 10.5, yshift=44, **place)
    return figure


def _edges(values):
    """(edges of the shared bins in whole numbers, how many values lie beyond the last one)."""
    import numpy as np

    usual, longest = int(np.percentile(values, 99)), int(values.max())
    end = longest if longest <= 1.5 * usual + 5 else usual
    width = max(1, -(-(end + 1) // _BINS))
    edges = np.arange(0, end + width + 1, width)
    return edges, int((values >= edges[-1]).sum())


def _name_medians(figure, lengths, shade, end):
    """Draw a line at each median, with its name in a row of its own above the chart, so that no two overlap."""
    for level, side in enumerate(SIDES):
        median, color = float(lengths[f"{side}_length"].median()), shade[side]
        at = min(median, end)
        line = {"color": color, "width": 1.4, "dash": _DASHES[side]}
        figure.add_shape(type="line", xref="x", x0=at, x1=at, yref="paper", y0=0, y1=1, line=line)
        place = {"xanchor": "left", "xshift": 3} if at < 0.7 * end else {"xanchor": "right", "xshift": -3}
        place |= {"x": at, "y": 1, "yref": "paper", "yanchor": "bottom", "yshift": 1 + 14 * (2 - level)}
        note(figure, f"{side}: median {significant(median)}", color, **place)
