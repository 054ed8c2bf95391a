"""An opened model that answers when it is told to, and adapters that it would be opened with."""

from types import SimpleNamespace

import pandas as pd

from simpo_workbench.base.files import write_json


class FakeModel:
    """An opened model whose answers come when they are told to."""

    def __init__(self, run, step, tuned=True):
        self.run = SimpleNamespace(status=SimpleNamespace(alive=True, state="loading"))
        self.step, self.tuned, self.asked, self.state, self.cancelled, self.error = (
            step,
            tuned,
            [],
            "asked",
            False,
            None,
        )

    def ask(self, kind, **values):
        self.asked.append((kind, values))
        return self

    def result(self, timeout_s=None):
        if self.error:
            raise self.error
        row = {"base": "The cat sat here.", "base_tokens": 5, "base_ended": True, "base_repeated_4grams": 0.0}
        if self.tuned:
            row |= {
                "tuned": f"The dog sat here at {self.step}.",
                "tuned_tokens": 8,
                "tuned_ended": False,
                "tuned_repeated_4grams": 0.25,
            }
        return pd.DataFrame([row])

    def cancel(self):
        self.cancelled = True
        return True


def keep_adapters(run, steps, final=True):
    for step in steps:
        (run.folder.checkpoint(step) / "adapter").mkdir(parents=True, exist_ok=True)
    if final:
        run.folder.adapter.mkdir(exist_ok=True)
        write_json(run.folder.adapter / "adapter_config.json", {})
