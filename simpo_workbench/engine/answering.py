"""Questions to a loaded model, as letters: generate, score, explain, encode. The same answers as the functions of those names give in process."""

from ..config import DataConfig, GenerationConfig, LossConfig, RunConfig
from ..errors import WorkbenchError, first_line
from ..mailbox import Letter, Postmaster
from ..pairs import load_pairs
from . import explaining, generation, scoring
from .memory import is_out_of_memory, release_memory
from .models import LoadedModel


def answer(post: Postmaster, letter: Letter, loaded: LoadedModel, config: RunConfig):
    """Answer one letter. Whatever goes wrong is said to the one who asked; it never ends the process."""
    training = loaded.model.training
    try:
        table = _table(letter, loaded, config)
        post.done(letter, table.attrs.get("report", ""), table=table)
    except WorkbenchError as error:
        post.refuse(letter, str(error))
    except Exception as error:  # a question must not end a run of hours
        if is_out_of_memory(error):
            release_memory(loaded.device)
            post.refuse(letter, "There is not enough memory for this question beside what the process holds: ask for less at once, or wait until the run has ended.")
        else:
            post.refuse(letter, f"The question failed: {type(error).__name__}: {first_line(error)}.")
    finally:
        loaded.model.train(training)


def _table(letter, loaded, config):
    values = letter.values
    data = DataConfig.model_validate(values["data"]) if values.get("data") else config.data
    loaded.model.eval()
    if letter.kind == "generate":
        wanted = GenerationConfig.model_validate(values["generation"]) if values.get("generation") else config.generation
        return generation.generate(loaded, values.get("prompts", []), wanted, data, int(values.get("seed", 0)))
    pairs = load_pairs(values.get("pairs", []))
    if letter.kind == "score":
        loss = LossConfig.model_validate(values["loss"]) if values.get("loss") else config.loss
        return scoring.score(loaded, pairs, loss, data)
    if letter.kind == "explain":
        return explaining.explain_pair(loaded, pairs, data)
    return explaining.encode_pair(loaded, pairs, data)
