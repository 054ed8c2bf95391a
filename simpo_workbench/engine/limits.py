"""Checks that token ids and lengths fit a model: its embedding and its positions.

Without them a GPU ends in an assertion that names nothing, and rotary models go on with positions they never learned.
"""

from __future__ import annotations

import numpy as np

from ..base.errors import WorkbenchError
from ..base.format import counted
from .encode.encoded_pairs import EncodedPairs
from .model.models import LoadedModel


def require_fitting_pairs(loaded: LoadedModel, encoded, side: str = "") -> None:
    """Raise WorkbenchError unless every answer with its prompt has a position for each token, and an embedding.

    encoded: EncodedPairs, or a list of EncodedPair. side: such as "training", for the sentence.
    """
    if isinstance(encoded, EncodedPairs):
        lengths, largest = encoded.lengths, encoded.largest_id
    else:
        sides = [(pair.prompt_ids, pair.chosen_ids, pair.rejected_ids) for pair in encoded]
        lengths = np.array([[len(ids) for ids in pair] for pair in sides])
        largest = max((max(ids, default=0) for pair in sides for ids in pair), default=0)
    longest = lengths[:, 0] + lengths[:, 1:].max(axis=1)
    too_long = int((longest > loaded.positions).sum()) if loaded.positions else 0
    if too_long:
        pairs = counted(len(longest), f"{side} pair".strip())
        raise WorkbenchError(
            f"{too_long} of {pairs} {'is' if too_long == 1 else 'are'} longer than the model's"
            f" {loaded.positions:,} positions; the longest has {int(longest.max()):,} tokens. Set data.max_tokens to"
            f" {loaded.positions} or less (data.overlong says whether longer pairs are dropped or cut), or choose a"
            " model with more positions."
        )
    _require_embedding(loaded, largest, f"a {side} pair" if side else "a pair")


def require_room_for_answers(loaded: LoadedModel, prompts: list[list[int]], max_new_tokens: int) -> None:
    """Raise WorkbenchError unless every prompt and `max_new_tokens` after it have a position for each token.

    prompts: token ids. An answer is never cut short without a word.
    """
    longest = max(map(len, prompts), default=0)
    if loaded.positions and longest + max_new_tokens > loaded.positions:
        room = loaded.positions - longest
        todo = "Ask for shorter answers: set generation.max_new_tokens to at most " + str(room)
        if room < 1:
            todo = "Shorten or leave out that prompt (data.max_tokens limits held-out ones)"
        raise WorkbenchError(
            f"The longest prompt has {longest:,} tokens and its answer may have {max_new_tokens:,}"
            f" (generation.max_new_tokens), which is more than the model's {loaded.positions:,} positions. {todo}, or"
            " choose a model with more positions."
        )
    _require_embedding(loaded, max((max(ids, default=0) for ids in prompts), default=0), "a prompt")


def _require_embedding(loaded, largest, what):
    if largest >= loaded.vocabulary:
        token = loaded.tokenizer.convert_ids_to_tokens(int(largest))
        raise WorkbenchError(
            f"The token {str(token)[:40]!r} of {what} has the id {int(largest)}, but the model's embedding has"
            f" {loaded.vocabulary:,} rows: the tokenizer knows more tokens than the model. Take the tokenizer that was"
            " saved with these weights, or enlarge the embedding (resize_token_embeddings) and save the model again."
        )
