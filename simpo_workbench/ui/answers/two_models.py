"""Prompts to two models: which models there are to choose from, and the question to both, watched until both have
answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ipywidgets

from ...base.format import duration
from ...config.run_config import GenerationConfig
from ...runs.folder import run_names
from ...runs.run import Run, attach
from ..parts.answers import Answer
from ..parts.folder_stamp import folder_stamp
from ..parts.following import LOCK
from ..parts.model_requests import OPEN_MODELS, ModelRequest
from ..parts.panel import Panel


@dataclass(frozen=True)
class Side:
    """A model that can be asked: that of `run` with the adapter kept at `step` (0: the untrained model, None: the final
    adapter, or as it is now).
    """

    run: Run
    step: int | None
    title: str


def sides_of(run: Run) -> dict[str, Side]:
    """The models to choose from, by a key that stays: untrained, every kept step, as it is now or in the end, and the
    final adapters of the other runs in its root.
    """
    status, steps = run.status, [step for step in run.adapter_steps() if step]
    sides = {"base": Side(run, 0, "untrained model (base)")}
    for step in steps:
        sides[f"step {step}"] = Side(
            run, step, f"step {step}" + (" (recommended)" if step == status.recommended_step else "")
        )
    if status.alive:
        sides["now"] = Side(run, None, "as it is now")
    elif _has_final(run) and (not steps or steps[-1] != status.step):
        sides["now"] = Side(run, None, "final adapter")
    for name in sorted(run_names(run.path.parent)):
        if name != run.name and _has_final(other := attach(name, run.path.parent)):
            sides[f"run {name}"] = Side(other, None, f"run {name}, final adapter")
    return sides


def sides_stamp(run: Run) -> tuple:
    """What there is to choose from, told without reading it: sampled answers, kept adapters, whether the run lives, and
    the final adapters of all runs beside it.
    """
    status, finals = run.status, run.path.parent.glob("*/adapter/adapter_config.json")
    return (
        folder_stamp(run.path / "generations"),
        run.adapter_steps(),
        status.alive,
        status.recommended_step,
        sorted(finals),
    )


def choice_menu(title: str, flex: str = "1 1 170px") -> ipywidgets.Dropdown:
    """An empty menu that takes its share of a row."""
    return ipywidgets.Dropdown(
        description=title,
        options=[],
        style={"description_width": "initial"},
        layout={"width": "auto", "flex": flex, "min_width": "230px"},
    )


def fill_menu(menu: ipywidgets.Dropdown, options: list[tuple], default):
    """New options, as (title, value); the choice stays where it is still there."""
    values = [value for _, value in options]
    wanted = menu.value if menu.value in values else default
    menu.options = options
    menu.value = wanted


def sampled_at(step: int) -> str:
    """What the model of a run is called that gave the answers sampled at a step."""
    return "untrained model · step 0" if step == 0 else f"tuned · step {step}"


def _has_final(run):
    return (run.folder.adapter / "adapter_config.json").is_file()


class Round:
    """Prompts on their way to two models, as texts or messages; `answers` holds (left Answer, right Answer) for each
    prompt, once all are there.
    """

    def __init__(self, prompts: Sequence[str | list], left: Side, right: Side, generation: GenerationConfig, seed: int):
        self.prompts, self.left, self.right, self.generation, self.seed = list(prompts), left, right, generation, seed
        self.started, self.answers, self.cancelled = time.monotonic(), [], False
        self._requests, self._tables, self._says = [], {}, {}

    @property
    def settings(self) -> str:
        """How it was asked, in words."""
        words = [f"at most {self.generation.max_new_tokens} tokens", f"temperature {self.generation.temperature:g}"]
        return ", ".join([*words, f"seed {self.seed}"] if self.generation.temperature else words)

    def ask(self, panel: Panel, done: Callable, failed: Callable, waiting: Callable[[str], None]):
        """Open what must be opened and ask; a model that is needed on both sides is asked once. The callbacks are
        called as handlers of the panel.

        done(round), or failed(error), whatever went wrong, unless it was cancelled; waiting(sentence) several times a
        second, with the seconds since the start.
        """
        models = self._models()

        def open_all():
            with LOCK:  # panels share the opened models
                return {model: OPEN_MODELS.of_run(*model) for model in models if not self.cancelled}

        def ends_if_it_fails(handler):
            def tried(found):
                try:
                    handler(found)
                except Exception as error:
                    gone_wrong(error)
                    raise  # to be said

            return tried

        def ask_all(opened):
            for model, remote in opened.items():
                if self.cancelled:
                    return
                self._requests.append(
                    ModelRequest(
                        panel, remote, "generate", answered(model), said(model), gone_wrong, **self._values(model)
                    )
                )

        def answered(model):
            def keep(table):
                self._tables[model] = table
                if len(self._tables) == len(models) and not self.cancelled:
                    self.answers = [
                        tuple(self._answer(side, models, place) for side in (self.left, self.right))
                        for place in range(len(self.prompts))
                    ]
                    done(self)

            return ends_if_it_fails(keep)

        def said(model):
            def say(sentence):
                self._says[model] = sentence
                missing = [self._says[one] for one in models if one not in self._tables and one in self._says]
                waiting(f"{missing[0] if missing else sentence} {duration(time.monotonic() - self.started)}")

            return say

        def gone_wrong(error):
            if not self.cancelled:
                self.cancel()
                failed(error)

        waiting("Loading the model … 0 s")
        panel.later(open_all, ends_if_it_fails(ask_all), gone_wrong)

    def cancel(self):
        """Nobody waits for the answers any more."""
        self.cancelled = True
        for asking in self._requests:
            asking.cancel()

    def _values(self, model):
        return {"prompts": self.prompts, "generation": self.generation, "data": model[0].config.data, "seed": self.seed}

    def _models(self):
        """The models to ask as (run, step): an untrained one answers beside the trained one of the same run."""
        wanted = list(dict.fromkeys((side.run, side.step) for side in (self.left, self.right)))
        trained = [(run, step) for run, step in wanted if step != 0]
        return [(run, step) for run, step in wanted if step != 0 or not any(run is other for other, _ in trained)]

    def _answer(self, side, models, place):
        asked = next(
            model for model in models if model == (side.run, side.step) or (side.step == 0 and model[0] is side.run)
        )
        found, status = self._tables[asked].iloc[place], side.run.status
        which = "tuned" if side.step != 0 and "tuned" in found else "base"
        title = f"{side.title} (step {status.step})" if side.step is None and status.alive else side.title
        return Answer(
            title,
            found[which],
            int(found[f"{which}_tokens"]),
            bool(found[f"{which}_ended"]),
            float(found[f"{which}_repeated_4grams"]),
        )
