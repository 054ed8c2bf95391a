"""The result of a preflight: the time and memory that a run needs, measured before it starts, and whether that fits."""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass

from ..analysis.scores import share_of
from ..base.format import counted, duration, memory, signed

#: With fewer held-out pairs no share is known better than to about ±0.2.
FEW_PAIRS = 20
#: From this share of the free memory on it is tight: another program, or an unusual step, may take the rest.
TIGHT = 0.85


@dataclass(frozen=True)
class PreflightResult:
    """The time and memory that a run needs on this machine, in seconds and bytes.

    seconds_per_step: of an average step; seconds_per_longest_step: of a step of the longest pairs, which were measured.
    seconds_per_evaluation: scoring the held-out pairs; seconds_per_sampling: answering the sample prompts, at most;
    seconds_per_save: a checkpoint. seconds_left: the whole run with all of these, and the final pairs scored twice.
    peak_memory_bytes: with the longest pairs; of it base_memory_bytes were in use with the model loaded.
    free_memory_bytes: before that. dropped, truncated: training and held-out pairs together. shortages: sentences on
    where memory ran out. held_out_pairs: those that choose a step; final_pairs: those that report on it, on which
    final_share is the sentence. base_leads: the base model's leads (nats per token) on a sample of the held-out pairs,
    against target_lead (γ/β); base_prompts: the number of each one's prompt, () where no two share one. adapter: the
    LoRA settings that hold, with model.adapter that adapter's own. data_notes: sentences on the rows that were read,
    kept and refused, and on what was changed or left out of them.
    """

    steps: int
    seconds_per_step: float
    seconds_per_longest_step: float
    seconds_per_evaluation: float
    seconds_per_sampling: float
    seconds_per_save: float
    evaluations: int
    samplings: int
    saves: int
    seconds_left: float
    base_memory_bytes: int
    peak_memory_bytes: int
    free_memory_bytes: int
    max_tokens_per_microbatch: int
    checkpointed_layers: int
    train_pairs: int
    held_out_pairs: int
    final_pairs: int
    final_share: str
    truncated: int
    dropped: dict[str, int]
    base_leads: tuple[float, ...]
    target_lead: float
    shortages: tuple[str, ...]
    warnings: tuple[str, ...]
    adapter: str = ""
    base_prompts: tuple[int, ...] = ()
    data_notes: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, values: dict) -> PreflightResult:
        """The result that `as_dict` came from, also after a round trip through JSON."""
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    def as_dict(self) -> dict:
        return dataclasses.asdict(self)

    @property
    def memory_share(self) -> float:
        """The memory that training takes beyond the loaded model, as a share of the memory that was free then."""
        return (self.peak_memory_bytes - self.base_memory_bytes) / max(1, self.free_memory_bytes)

    @property
    def fit(self) -> str:
        """ "fits", "tight", or "does not fit" if it used more memory than was free, for example swap.

        If not even one pair fits, the preflight raises an error instead.
        """
        if self.memory_share > 1:
            return "does not fit"
        return "tight" if self.shortages or self.memory_share > TIGHT else "fits"

    @property
    def verdict(self) -> str:
        """Whether it fits, in a sentence, and what would make it fit."""
        facts = (
            f"training takes {memory(self.peak_memory_bytes - self.base_memory_bytes)} beside the model, and"
            f" {memory(self.free_memory_bytes)} were free"
        )
        if self.fit == "fits":
            return f"It fits: {facts}."
        remedies = []
        if self.checkpointed_layers == 0:
            remedies.append("set training.gradient_checkpointing to all")
        remedies.append(
            f"lower training.max_tokens_per_microbatch (it was {self.max_tokens_per_microbatch}; no result changes)"
        )
        remedies.append("lower data.max_tokens")
        head = "It is tight" if self.fit == "tight" else "It does not fit"
        return f"{head}: {facts}. {' '.join(self.shortages)} To make room, {', or '.join(remedies)}.".replace("  ", " ")

    @property
    def base_standing(self) -> str:
        """How far ahead the base model puts the chosen answers of the sampled pairs, in a sentence."""
        leads = self.base_leads
        ahead = share_of([lead > 0 for lead in leads], self.base_prompts or None)
        sentence = (
            f"Before training the chosen answer is ahead in {ahead} of the sampled held-out pairs, by"
            f" {signed(statistics.fmean(leads))} nats per token in the mean"
        )
        if self.held_out_pairs < FEW_PAIRS:
            sentence += (
                f" ({counted(self.held_out_pairs, 'held-out pair')} can measure next to nothing: raise"
                " data.eval_fraction, or give held-out pairs of their own in data.eval)"
            )
        if not self.target_lead:  # DPO has no γ
            return f"{sentence}."
        beyond = sum(lead > self.target_lead for lead in leads)
        return f"{sentence}; {beyond} of {len(leads)} are already beyond γ/β = {self.target_lead:g}."

    def rows(self) -> list[tuple[str, str]]:
        """The measurements as (what, how much)."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.dropped.items()) if count)
        dropped = f"{sum(self.dropped.values()):,} dropped{f' ({reasons})' if reasons else ''}"
        pairs = (
            f"{self.train_pairs:,} for training, {self.held_out_pairs:,} held out, {self.final_pairs:,} final;"
            f" {self.truncated:,} with a cut prompt, {dropped}"
        )
        peak = (
            f"{memory(self.peak_memory_bytes)}, {memory(self.base_memory_bytes)} of it model and program;"
            f" {memory(self.free_memory_bytes)} were free beside them"
        )
        layers = counted(self.checkpointed_layers, "layer")
        return [
            ("whole run", f"{duration(self.seconds_left)} for {counted(self.steps, 'step')}"),
            ("a step", f"{self.seconds_per_step:.2f} s ({self.seconds_per_longest_step:.2f} s with the longest pairs)"),
            ("an evaluation", f"{duration(self.seconds_per_evaluation)}, {self.evaluations} times"),
            ("sample answers", f"{duration(self.seconds_per_sampling)} at most, {self.samplings} times"),
            ("a checkpoint", f"{self.seconds_per_save:.2f} s, {self.saves} times"),
            ("peak memory", peak),
            ("at once", f"{self.max_tokens_per_microbatch:,} tokens, {layers} checkpointed"),
            ("pairs", pairs),
            ("final pairs", self.final_share),
            *([("adapter", f"LoRA {self.adapter}")] if self.adapter else []),
        ]

    def __str__(self):
        table = [f"{name:<15} {value}" for name, value in self.rows()]
        return "\n".join([self.verdict, *table, self.base_standing, *self.data_notes, *self.warnings])
