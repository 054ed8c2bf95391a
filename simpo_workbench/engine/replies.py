"""Replies to requests of a loaded model: generate, score, explain, encode.

Their tables are those of the functions with these names, called in process.
"""

import contextlib

from ..base.errors import WorkbenchError, first_line
from ..config.run_config import DataConfig, GenerationConfig, LossConfig, RunConfig
from ..pairs.pairs import load_pairs
from ..runs.mailbox import Inbox, Request
from . import explaining, generation, scoring
from .encode import pair_tokens
from .encode.template_values import values_of
from .forward.memory import is_out_of_memory, release_memory
from .model.models import LoadedModel


def reply(inbox: Inbox, request: Request, loaded: LoadedModel, config: RunConfig, step: int | None = None) -> None:
    """Reply to one request. An error becomes a refusal; it never ends the process.

    step: the step after which a run that trains replies, for the reply to say whose answers these are.
    """
    training, refusal = loaded.model.training, None
    try:
        table = _table(inbox, request, loaded, config)
        inbox.done(request, table.attrs.get("report", ""), table=table, **({} if step is None else {"step": step}))
    except WorkbenchError as error:
        refusal = str(error)
    except Exception as error:  # a request must not end a run of hours
        refusal = f"The request failed: {type(error).__name__}: {first_line(error)}."
        if is_out_of_memory(error):
            refusal = (
                "There is not enough memory for this request in addition to what the process holds: ask for less at"
                " once, or wait until the run has ended."
            )
    finally:
        loaded.model.train(training)
    if refusal is not None:  # outside of the except clause, where the failed request's tensors are free
        release_memory(loaded.device)
        with contextlib.suppress(WorkbenchError):  # a full disk shows where it matters, in the run's own files
            inbox.refuse(request, refusal)


def _table(inbox, request, loaded, config):
    values = request.values
    data = DataConfig.model_validate(values["data"]) if values.get("data") else config.data
    loaded.model.eval()
    if request.kind == "generate":
        sampling = config.generation
        if values.get("generation"):
            sampling = GenerationConfig.model_validate(values["generation"])
        prompts, seed = values.get("prompts", []), int(values.get("seed", 0))
        return generation.generate(loaded, prompts, sampling, data, seed, lambda: inbox.is_withdrawn(request))
    pairs = load_pairs(values.get("pairs", []), framed_prompts=data.framed_prompts)
    if request.kind == "score":
        loss = LossConfig.model_validate(values["loss"]) if values.get("loss") else config.loss
        return scoring.score(loaded, pairs, loss, data)
    if request.kind == "explain":
        return explaining.explain_pair(loaded, pairs, data)
    return pair_tokens.encode_pair(loaded.tokenizer, pairs, data, values_of(loaded))
