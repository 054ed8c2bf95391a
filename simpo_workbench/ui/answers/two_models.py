"""Prompts to two models: which models there are to choose from, and the requests to both of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

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
    """A model to choose: that of `run` with the adapter kept at `step` (0: the base model; None: the final adapter, or
    the model as it is now).
    """

    run: Run
    step: int | None
    title: str


def sides_of(run: Run) -> dict[str, Side]:
    """The models to choose from, by a key that stays the same: the base model, every kept step, the model as it is now
    or at the end, and the final adapters of the other runs in the same root.
    """
    status, steps = run.status, [step for step in run.adapter_steps() if step]
    sides = {"base": Side(run, 0, "base model")}
    for step in steps:
        recommended = " (recommended)" if step == status.recommended_step else ""
        sides[f"step {step}"] = Side(run, step, f"step {step}{recommended}")
    if status.alive:
        sides["now"] = Side(run, None, "as it is now")
    elif _has_final(run) and (not steps or steps[-1] != status.step):
        sides["now"] = Side(run, None, "final adapter")
    for name in sorted(run_names(run.path.parent)):
        if name != run.name and _has_final(other := attach(name, run.path.parent)):
            sides[f"run {name}"] = Side(other, None, f"run {name}, final adapter")
    return sides


def sides_stamp(run: Run) -> tuple:
    """A stamp of the available models, computed without reading them."""
    status = run.status
    return (
        folder_stamp(run.path / "generations"),
        run.adapter_steps(),
        status.alive,
        status.recommended_step,
        sorted(run.path.parent.glob("*/adapter/adapter_config.json")),
    )


def choice_menu(title: str, flex: str = "1 1 170px") -> ipywidgets.Dropdown:
    """An empty menu that takes its share of a row."""
    return ipywidgets.Dropdown(
        description=title,
        options=[],
        style={"description_width": "initial"},
        layout={"width": "auto", "flex": flex, "min_width": "230px"},
    )


def generation_controls() -> tuple[ipywidgets.Widget, ...]:
    """Controls for the longest answer in tokens, the temperature and the seed."""
    style = {"description_width": "initial"}
    return (
        ipywidgets.BoundedIntText(
            description="Longest answer (tokens)", min=1, max=8192, value=64, style=style, layout={"width": "230px"}
        ),
        ipywidgets.BoundedFloatText(
            description="Temperature",
            min=0,
            max=5,
            step=0.1,
            value=0,
            tooltip="0: always the likeliest token; higher is more random.",
            style=style,
            layout={"width": "160px"},
        ),
        ipywidgets.BoundedIntText(
            description="Seed",
            min=0,
            max=2**31 - 1,
            value=0,
            tooltip="The same seed gives the same answers; it counts when the temperature is above 0.",
            style=style,
            layout={"width": "120px"},
        ),
    )


def fill_menu(menu: ipywidgets.Dropdown, options: list[tuple], default) -> None:
    """Give a menu new options, as (title, value); the choice stays if it is among them."""
    values = [value for _, value in options]
    wanted = menu.value if menu.value in values else default
    menu.options = options
    menu.value = wanted


def sampled_at(step: int) -> str:
    """The name of the model that gave a run's answers sampled at a step."""
    return "base model · step 0" if step == 0 else f"tuned · step {step}"


def _has_final(run):
    return (run.folder.adapter / "adapter_config.json").is_file()


class Round:
    """Prompts, texts or messages, to two models. `answers` holds (left Answer, right Answer) for each prompt, once both
    models have replied.
    """

    def __init__(self, prompts: Sequence[str | list], left: Side, right: Side, generation: GenerationConfig, seed: int):
        self.prompts, self.left, self.right, self.generation, self.seed = list(prompts), left, right, generation, seed
        self.started, self.answers = time.monotonic(), []
        self._requests, self._tables, self._sentences = {}, {}, {}

    @property
    def settings(self) -> str:
        """A sentence on how answers are generated."""
        words = [f"at most {self.generation.max_new_tokens} tokens", f"temperature {self.generation.temperature:g}"]
        return ", ".join([*words, f"seed {self.seed}"] if self.generation.temperature else words)

    @property
    def titles(self) -> tuple[str, str]:
        """The names of both models, those of a run that trains with the step after which it answered."""
        return self._title(self.left), self._title(self.right)

    def ask(self, panel: Panel, done: Callable, failed: Callable, waiting: Callable[[str], None]) -> None:
        """Ask both models; one that is needed on both sides is asked once.

        Handlers of the panel, none of which is called after `cancel()`: `done(round)`, or `failed(error)`, and until
        then `waiting(sentence)` several times a second, with the time since the start.
        """

        def received(model, table):
            self._tables[model] = table
            if len(self._tables) == len(self._requests):
                places = range(len(self.prompts))
                self.answers = [(self._answer(self.left, place), self._answer(self.right, place)) for place in places]
                done(self)

        def still_waiting(model, sentence):
            self._sentences[model] = sentence
            awaited = [text for asked, text in self._sentences.items() if asked not in self._tables]
            waiting(f"{awaited[0]} {duration(time.monotonic() - self.started)}")

        def gone_wrong(error):
            self.cancel()
            failed(error)

        waiting("Loading the model … 0 s")
        with LOCK:  # no reply comes before both requests are made
            for run, step in self._models():
                self._requests[run, step] = ModelRequest(
                    panel,
                    partial(OPEN_MODELS.of_run, run, step),
                    "generate",
                    done=partial(received, (run, step)),
                    failed=gone_wrong,
                    waiting=partial(still_waiting, (run, step)),
                    prompts=self.prompts,
                    generation=self.generation,
                    data=run.config.data,
                    seed=self.seed,
                )

    def cancel(self) -> None:
        """Cancel the requests."""
        for request in self._requests.values():
            request.cancel()

    def _models(self):
        """The models to ask as (run, step): for a base model, a tuned one of the same run does as well."""
        wanted = list(dict.fromkeys((side.run, side.step) for side in (self.left, self.right)))
        tuned_runs = [run for run, step in wanted if step != 0]
        return [(run, step) for run, step in wanted if step != 0 or run not in tuned_runs]

    def _title(self, side):
        table = self._tables.get((side.run, side.step))
        step = None if table is None or side.step == 0 else table.attrs.get("step")
        return side.title if step is None else f"{side.title} (step {step})"

    def _answer(self, side, place):
        model = (side.run, side.step)
        if model not in self._tables:  # the base model: the tuned one of its run was asked
            model = next((run, step) for run, step in self._tables if run is side.run)
        row = self._tables[model].iloc[place]
        which = "tuned" if side.step != 0 and "tuned" in row else "base"
        return Answer(
            self._title(side),
            row[which],
            int(row[f"{which}_tokens"]),
            bool(row[f"{which}_ended"]),
            float(row[f"{which}_repeated_4grams"]),
        )
