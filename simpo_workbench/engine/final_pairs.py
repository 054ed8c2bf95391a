"""The final pairs, on which no step is chosen: scored at step 0, and for the recommended step when a run ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch

from ..base.errors import WorkbenchError
from ..base.format import counted
from ..config.run_config import LossConfig
from ..runs.verified import adapter_of
from . import checkpoints
from .evaluation import score_step
from .recorder import Recorder
from .setup import Setup

_WORDS = "scoring {} of {} final pairs"


def score_base(setup: Setup, recorder: Recorder, loss: LossConfig) -> None:
    """Score the final pairs with the model as it is before the first step."""
    if setup.final:
        recorder.final_scores(0, score_step(setup, setup.final, loss, 0, _WORDS, recorder.progress))
        recorder.doing("")


def score_recommended(setup: Setup, recorder: Recorder, loss: LossConfig, step: int) -> None:
    """Score the final pairs with the adapter of the recommended step, unless that was done before; `step` is the last
    one. An event says so, or why they cannot be scored: the run itself has ended well then.
    """
    recommended = recorder.settle_recommended()
    if not setup.final or not recommended or recorder.folder.final_scores(recommended).is_file():
        return
    try:
        adapter = adapter_of(recorder.folder, recommended)
        if adapter is None:
            raise WorkbenchError(f"the adapter of step {recommended} is not in this run.")
        with _adapter(setup, adapter, recommended):
            scores = score_step(setup, setup.final, loss, recommended, _WORDS, recorder.progress)
        recorder.final_scores(recommended, scores)
        text = f"Scored {counted(len(scores), 'final pair')} with the adapter of step {recommended}."
    except WorkbenchError as error:
        text = f"The final pairs are not scored for step {recommended}: {error}"
    recorder.doing("")
    recorder.event(step, "final", text)


@contextlib.contextmanager
def _adapter(setup: Setup, adapter: Path, step: int) -> Iterator[None]:
    """Within this block the model has the adapter in a folder; after it its own again, bit for bit.

    Only the adapter's weights are kept beside the model.
    """
    own = [parameter.detach().clone() for parameter in setup.parameters]
    try:
        checkpoints.load_adapter(setup, adapter, step)
        yield
    finally:
        with torch.no_grad():
            for parameter, values in zip(setup.parameters, own, strict=True):
                parameter.copy_(values)
