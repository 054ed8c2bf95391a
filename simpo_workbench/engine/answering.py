"""Questions to a loaded model, as requests: generate, score, explain, encode.

The same answers as the functions of those names give in process.
"""

import contextlib

from ..base.errors import WorkbenchError, first_line
from ..config.run_config import DataConfig, GenerationConfig, LossConfig, RunConfig
from ..pairs.pairs import load_pairs
from ..runs.mailbox import Inbox, Request
from . import explaining, generation, scoring
from .forward.memory import is_out_of_memory, release_memory
from .model.models import LoadedModel


def answer(inbox: Inbox, request: Request, loaded: LoadedModel, config: RunConfig):
    """Answer one request. Whatever goes wrong is said to the one who asked; it never ends the process."""
    training, why = loaded.model.training, None
    try:
        table = _table(inbox, request, loaded, config)
        inbox.done(request, table.attrs.get("report", ""), table=table)
    except WorkbenchError as error:
        why = str(error)
    except Exception as error:  # a question must not end a run of hours
        short = (
            "There is not enough memory for this question beside what the process holds: ask for less at once, or wait"
            " until the run has ended."
        )
        why = short if is_out_of_memory(error) else f"The question failed: {type(error).__name__}: {first_line(error)}."
    finally:
        loaded.model.train(training)
    if why is not None:  # outside of the except clause, where the failed question's tensors are free
        release_memory(loaded.device)
        with contextlib.suppress(WorkbenchError):  # a full disk shows where it matters, in the run's own files
            inbox.refuse(request, why)


def _table(inbox, request, loaded, config):
    values = request.values
    data = DataConfig.model_validate(values["data"]) if values.get("data") else config.data
    loaded.model.eval()
    if request.kind == "generate":
        wanted = (
            GenerationConfig.model_validate(values["generation"]) if values.get("generation") else config.generation
        )
        return generation.generate(
            loaded,
            values.get("prompts", []),
            wanted,
            data,
            int(values.get("seed", 0)),
            lambda: inbox.is_withdrawn(request),
        )
    pairs = load_pairs(values.get("pairs", []))
    if request.kind == "score":
        loss = LossConfig.model_validate(values["loss"]) if values.get("loss") else config.loss
        return scoring.score(loaded, pairs, loss, data)
    if request.kind == "explain":
        return explaining.explain_pair(loaded, pairs, data)
    return explaining.encode_pair(loaded, pairs, data)
