"""The leads of a scores table of one step, which β and γ/β do not change. Pure functions of DataFrames."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ..base.errors import WorkbenchError
from ..base.escape import plotly_text
from ..base.format import counted
from .clusters import clusters

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class Leads:
    """One row per pair, (pairs,): leads (chosen − rejected average log-probability, nats per token), lengths in tokens.

    Lengths and prompts are None where the table has none. beta, gamma_beta_ratio, step: of the table (None: unknown).
    simpo: whether the table's own margins are β × lead; those of DPO are not.
    """

    pair_id: object
    lead: object
    chosen_tokens: object = None
    rejected_tokens: object = None
    prompt: object = None
    beta: float | None = None
    gamma_beta_ratio: float | None = None
    simpo: bool = True
    step: int | None = None

    def __len__(self):
        return len(self.lead)

    @cached_property
    def order(self) -> np.ndarray:
        """Places of the pairs from the smallest lead to the largest."""
        import numpy as np

        return np.argsort(self.lead, kind="stable")

    @cached_property
    def rising(self) -> np.ndarray:
        """The leads in that order."""
        return self.lead[self.order]

    @cached_property
    def places(self) -> dict[str, int]:
        """The row number of each pair_id."""
        return {name: place for place, name in enumerate(self.pair_id)}

    @cached_property
    def longer(self) -> np.ndarray | None:
        """1 where the chosen answer is longer, −1 where the rejected one is, else 0, (pairs,); None without lengths."""
        import numpy as np

        return None if self.chosen_tokens is None else np.sign(self.chosen_tokens - self.rejected_tokens)

    @cached_property
    def length_correlation(self) -> float | None:
        """Spearman's correlation of length difference (chosen − rejected, tokens) and pull; None where it has no value.

        It is the same for every β and γ/β: a smaller lead pulls harder.
        """
        import pandas as pd

        if self.longer is None or len(self) < 3:
            return None
        ranks = pd.DataFrame({"length": self.chosen_tokens - self.rejected_tokens, "pull": -self.lead}).rank()
        return None if (ranks.nunique() < 2).any() else float(ranks["length"].corr(ranks["pull"]))

    @cached_property
    def clusters(self) -> np.ndarray | None:
        """The number of each pair's prompt, (pairs,), as of `clusters`; None where no two pairs share one."""
        return clusters(self.prompt)

    @cached_property
    def labels(self) -> list[str]:
        """The name of each pair in charts: its prompt, or its id."""
        return [plotly_text(text, most=120) for text in (self.pair_id if self.prompt is None else self.prompt)]


def leads_of(scores) -> Leads:
    """The Leads of a scores table of one step.

    Errors: WorkbenchError for several steps, a pair twice, a missing column, or a value that is not a finite number.
    """
    import numpy as np

    sides = ["chosen_avg_logp", "rejected_avg_logp"]
    missing = [name for name in ("pair_id", *sides) if name not in scores]
    if missing:
        raise WorkbenchError(f"The table lacks the column {missing[0]!r}: give a table from wb.score or run.scores.")
    if "step" in scores and scores["step"].nunique() > 1:
        raise WorkbenchError(
            f"The table holds {scores['step'].nunique()} steps: choose one, such as scores[scores.step == 0]."
        )
    if scores["pair_id"].duplicated().any():
        raise WorkbenchError("The table holds a pair twice: choose one step, and each pair once.")
    ids = scores["pair_id"].to_numpy(dtype=object)
    lead = _numbers(scores, sides[0], ids) - _numbers(scores, sides[1], ids)
    lengths = ["chosen_tokens", "rejected_tokens"]
    tokens = [_numbers(scores, name, ids) for name in lengths] if set(lengths) <= set(scores.columns) else [None, None]
    beta, ratio = (_own(scores, name) for name in ("beta", "gamma_beta_ratio"))
    simpo = True
    if beta is not None and "margin" in scores:
        margins = _numbers(scores, "margin", ids)
        simpo = bool(np.allclose(margins, beta * lead, rtol=1e-3, atol=1e-3 * beta))
    step = int(scores["step"].iloc[0]) if "step" in scores and len(scores) else None
    prompt = scores["prompt"].to_numpy(dtype=object) if "prompt" in scores else None
    return Leads(ids, lead, *tokens, prompt, beta, ratio, simpo, step)


def _own(scores, name):
    """The single value of a column; None if there is none, or several."""
    values = scores[name].dropna().unique() if name in scores else ()
    return float(values[0]) if len(values) == 1 else None


def _numbers(scores, name, ids):
    import numpy as np
    import pandas as pd

    values = pd.to_numeric(scores[name], errors="coerce").to_numpy(dtype=float)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise WorkbenchError(
            f"{counted(len(wrong), 'value')} of {name} {'is' if len(wrong) == 1 else 'are'} not a finite number, the"
            f" first of pair {str(ids[wrong[0]])[:80]!r}: drop such pairs, and look for what made them (an empty"
            " answer, a ruined model)."
        )
    return values
