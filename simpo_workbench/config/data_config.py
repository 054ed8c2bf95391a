"""The settings of the preference pairs: where they come from, how they are read, rendered and limited."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue, model_validator

from ..base.errors import WorkbenchError
from .schema import Section, setting, shown

DEMO = "demo"
#: No model reads longer texts; and no run has more pairs.
MOST_TOKENS, MOST_PAIRS = 10_000_000, 1_000_000_000


class DataConfig(Section):
    """The preference pairs."""

    train: str = setting(
        DEMO,
        "Training pairs: 'demo', a file (JSONL, JSON, CSV, Parquet, also .gz or .zst), a folder, or a hub data set id.",
    )
    eval: str | None = setting(
        None, "Held-out pairs; without it a share of the training prompts is held out (the demo brings its own)."
    )
    eval_fraction: float = setting(
        0.1, "Share of the prompts that is held out when data.eval is not given.", gt=0, lt=1
    )
    final_fraction: Literal["auto"] | float = setting(
        "auto",
        "Share of the held-out prompts, by hash, that is kept from whatever chooses the step and scored at step 0 and"
        " for the recommended step alone: from 0 (none) to below 1. auto: a fifth, where that leaves at least 30 final"
        " pairs and as many to choose on. data.eval_limit comes first.",
    )
    columns: dict[str, str] = setting(
        dict,
        "Columns that are not recognized: our name (prompt, chosen, rejected, system) to the name in the file, such as"
        " {prompt: frage, chosen: gut}.",
    )
    pairs_from_ranking: Literal["best_worst", "adjacent", "all"] = setting(
        "best_worst",
        "Pairs of more than two answers to a prompt: the best with the worst, each with the next worse, or all.",
    )
    chat_template: str | None = setting(
        None, "Jinja chat template, or a file with one, for models that bring none.", rare=True
    )
    template_options: dict[str, JsonValue] = setting(
        dict,
        "Options for the chat template such as {enable_thinking: false}; the same for training, scoring and sampling.",
        rare=True,
    )
    special_tokens_in_text: Literal["as_text", "as_tokens", "refuse"] = setting(
        "as_text",
        "Control tokens such as <|im_end|> in texts of data and prompts: encoded as text, so no row can forge a turn;"
        " as control tokens; or such rows are refused.",
        rare=True,
    )
    framed_prompts: Literal["refuse", "as_conversation", "keep"] = setting(
        "refuse",
        "Prompts that a chat template has framed already: refused, read as conversations, or kept as they are.",
        rare=True,
    )
    on_template_mismatch: Literal["refuse", "drop", "keep"] = setting(
        "refuse",
        "Pairs that differ from what the chat template writes: refuse those with doubled or open thinking or a frame"
        " inside a frame and keep the others; drop every pair that differs; keep all. All are counted.",
        rare=True,
    )
    max_tokens: int = setting(1024, "Longest prompt and answer together.", unit="tokens", ge=8, le=MOST_TOKENS)
    overlong: Literal["drop", "keep_end"] = setting(
        "drop",
        "Pairs over max_tokens: drop them, or cut the prompt from the left (system turn and answers stay whole).",
    )
    limit: int | None = setting(
        None, "Most training pairs that are used; see data.limit_takes.", unit="pairs", ge=1, le=MOST_PAIRS
    )
    eval_limit: int | None = setting(
        None, "Most held-out pairs that are used; see data.limit_takes.", unit="pairs", ge=1, le=MOST_PAIRS
    )
    limit_takes: Literal["sample", "first"] = setting(
        "sample",
        "Which pairs data.limit and data.eval_limit take: a sample by hash of the pairs' contents, the same in every"
        " order of the rows and for every seed, or the first rows, which in a sorted file are like no others.",
        rare=True,
    )
    system_prompt: str | None = setting(None, "System turn for pairs that have none.")

    @model_validator(mode="after")
    def _check_share(self):
        # a number or a word: pydantic would compare the word with the bounds as well
        if self.final_fraction != "auto" and not 0 <= self.final_fraction < 1:
            raise WorkbenchError(
                f"data.final_fraction = {shown(self.final_fraction)} is not possible: expected a share from 0 (no final"
                " pairs) to below 1, or 'auto'."
            )
        return self
