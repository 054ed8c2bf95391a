"""What a model makes of one pair: its tokens, its place on the loss, and whether the run's scores agree. HTML of it."""

from __future__ import annotations

from dataclasses import dataclass

from ...analysis.geometry import OTHER_LOSS, loss_geometry
from ...analysis.microscope import SIDES, pair_facts, token_leads, where_won
from ...base.format import signed
from ...config.run_config import LossConfig
from ...runs.run import Run
from ...runs.verified import read_scores
from ..parts.html import Markup, facts, html, joined, table

#: Averages that differ from the run's scores by more than this plus the measured noise of scoring (nats per token) come
#: from other tokens, or from another model.
ROUNDING = 1e-3


@dataclass(frozen=True)
class Scored:
    """A pair's average log-probabilities at an evaluated step, by side, and the β and γ/β of its rewards."""

    step: int
    averages: dict[str, float]
    beta: float
    gamma_beta_ratio: float | None


@dataclass(frozen=True)
class ExplainedPair:
    """A pair as a model reads it.

    title: which model. tokens: from `token_leads`. loss: where the pair is placed; loss_from: where its β and γ/β come
    from.
    """

    title: str
    tokens: object
    loss: LossConfig
    loss_from: str
    prompt: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def tuned(self) -> bool:
        """Whether there is a base model to compare with."""
        return "change" in self.tokens

    @property
    def said(self) -> Markup:
        """What comes first: remarks, which answer leads, and where the lead is won."""
        remarks = joined(html('<p class="swb-notice swb-attention">{}</p>', remark) for remark in self.remarks)
        findings = [*pair_facts(self.tokens).sentences, *where_won(self.tokens)]
        sentences = joined(html("<li>{}</li>", finding) for finding in findings)
        prompt = ""
        if self.prompt:
            prompt = html(
                '<details class="swb-rare"><summary>{}</summary><div class="swb-text" tabindex="0">{}</div></details>',
                "The prompt, which is read but not scored",
                self.prompt,
            )
        return html('<h3>{}</h3>{}{}<ul class="swb-findings">{}</ul>', self.title, remarks, prompt, sentences)

    @property
    def numbers(self) -> Markup:
        """Both answers in numbers, and the pair's place on the loss."""
        return html('<div class="swb-numbers"><div>{}</div><div>{}</div></div>', facts_table(self.tokens), self.place)

    @property
    def place(self) -> Markup:
        """The pair before and after on the loss −log σ(z)."""
        loss = self.loss
        geometry = loss_geometry(self._averages(), loss.beta, loss.gamma_beta_ratio, loss.label_smoothing)
        rows = geometry.pairs.to_dict("records")
        names = [("lead", "lead (nats per token)", 2), ("margin", "margin β · lead", 2), ("z", "z = margin − γ", 2)]
        lines = [(words, *(signed(row[name], digits) for row in rows)) for name, words, digits in names]
        lines += [
            (words, *(f"{row[name]:.3f}" for row in rows))
            for name, words in (("loss", "loss −log σ(z)"), ("gradient_weight", "gradient weight β · σ(−z)"))
        ]
        lines += [
            ("share of the strongest pull", *(f"{max(0.0, row['pull_share']):.0%}" for row in rows)),
            ("so the pair", *(_state(row["state"]) for row in rows)),
        ]
        smoothing = f", ε {loss.label_smoothing:g}" if loss.label_smoothing else ""
        caption = (
            f"Place on SimPO's loss at β {loss.beta:g}, γ/β {loss.gamma_beta_ratio:g} (γ {loss.gamma:.3g}){smoothing}:"
            f" {self.loss_from}"
        )
        other = facts(OTHER_LOSS[loss.kind]) if loss.kind in OTHER_LOSS else ""
        return table(["", *(["base", "tuned"] if self.tuned else ["model"])], lines, caption) + other

    def _averages(self):
        import pandas as pd

        columns = ["base_logp", "logp"] if self.tuned else ["logp"]
        means = {column: self.tokens.groupby("side")[column].mean() for column in columns}
        averages = {"pair_id": columns}
        for side in SIDES:
            averages[f"{side}_avg_logp"] = [float(means[column][side]) for column in columns]
        return pd.DataFrame(averages)


def explained_pair(
    tokens,
    title: str,
    run: Run | None = None,
    prompt: str = "",
    scored: tuple[Scored | None, Scored | None] = (None, None),
) -> ExplainedPair:
    """An ExplainedPair of `wb.explain_pair`'s table.

    scored: the run's own scores of the base model and of the model that was asked, where there are any.
    The title names the step after which a run that trains replied. Errors: as `token_leads`.
    """
    if (step := tokens.attrs.get("step")) is not None:
        title = f"{title} · after step {step}"
    tokens, remarks = token_leads(tokens), [tokens.attrs["report"]] if tokens.attrs.get("report") else []
    if run is None:
        return ExplainedPair(title, tokens, LossConfig(), "the default settings", prompt, tuple(remarks))
    remarks += disagreements(tokens, scored, run.scoring_noise)
    loss, where = run.config.loss, "as in the run"
    if not loss.has_target_margin:  # its β weighs another margin
        loss, where = LossConfig(kind=loss.kind), "the default settings"
    elif run.objective_note:
        loss, where = run.objective, "the last objective of the run"
    elif (last := scored[1]) is not None:
        ratio = loss.gamma_beta_ratio if last.gamma_beta_ratio is None else last.gamma_beta_ratio
        loss = loss.model_copy(update={"beta": last.beta, "gamma_beta_ratio": ratio})
        where = f"as in the run at step {last.step}"
    return ExplainedPair(title, tokens, loss, where, prompt, tuple(remarks))


def scored_pair(run: Run, step: int | None, wanted: str) -> Scored | None:
    """The run's scores of a pair at a step; None where the step was not evaluated, or without this pair."""
    if step is None or not run.folder.scores(step).is_file():
        return None
    columns = ["pair_id", "chosen_avg_logp", "rejected_avg_logp", "beta", "gamma_beta_ratio"]
    rows = read_scores(run.folder, step, columns)
    rows = rows[rows["pair_id"] == wanted].to_dict("records")
    if not rows:
        return None
    averages = {side: rows[0][f"{side}_avg_logp"] for side in SIDES}
    return Scored(step, averages, rows[0]["beta"], rows[0]["gamma_beta_ratio"])


def disagreements(tokens, scored: tuple[Scored | None, Scored | None], noise: float | None) -> list[str]:
    """A sentence if the averages over the tokens differ from the run's scores beyond rounding and noise, else none.

    noise: of scoring, nats per token; None where it was not measured.
    """
    differences = []
    for column, known in zip(("base_logp", "logp"), scored, strict=True):
        if known is not None and column in tokens:
            for side, mean in tokens.groupby("side")[column].mean().items():
                differences.append((abs(mean - known.averages[side]), side, column, known.step))
    apart, side, column, step = max(differences, default=(0.0, "", "", 0))
    if apart <= ROUNDING + (noise or 0.0):
        return []
    which = "tuned model" if "base_logp" in tokens else "model"
    if column == "base_logp":
        which = "base model"
    measured = "was not measured" if noise is None else f"is {noise:.4f}"
    return [
        f"The averages are not those of the run's scores at step {step}: the {side} answer of the {which} differs by"
        f" {apart:.4f} nats per token, and this run's noise of scoring {measured}. So other tokens, or another model,"
        " are shown than were scored: check whether data, chat template or model were changed since, or whether the"
        " precision is low (16 bit)."
    ]


def facts_table(tokens) -> Markup:
    """Tokens, averages and sums of both answers, and their differences."""
    numbers = {row["side"]: row for row in pair_facts(tokens).table.to_dict("records")}
    columns, longer = [*SIDES, "lead"], numbers["lead"]["tokens"]
    counts = [f"{numbers[side]['tokens']:,}" for side in SIDES]
    rows = [("tokens, the end of turn among them", *counts, f"{longer:+,}".replace("-", "−") if longer else "0")]
    for name, unit in (("avg", "average (nats per token)"), ("sum", "sum (nats)")):
        kinds = {"": f"{name}_logp"}
        if "avg_change" in numbers["lead"]:
            kinds = {", base": f"base_{name}_logp", ", tuned": f"{name}_logp", ", change": f"{name}_change"}
        rows += [(unit + kind, *(signed(numbers[side][key]) for side in columns)) for kind, key in kinds.items()]
    head = ["log-probability", "chosen", "rejected", "chosen − rejected"]
    return table(head, rows, "With and without length normalisation")


def _state(state):
    words = {"full pull": "pulls with nearly all it could", "pulls": "still pulls", "saturated": "is saturated"}
    return words.get(state, state)
