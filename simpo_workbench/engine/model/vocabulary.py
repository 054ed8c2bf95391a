"""How many token ids and positions a model has, and whether its tokenizer stays within them."""

from ...base.errors import WorkbenchError
from ...base.format import counted


def vocabulary_of(model) -> int:
    """Ids that a model can read and predict: rows of its embedding, or of its head where that has fewer."""
    sizes = [model.get_input_embeddings().weight.shape[0]]
    head = model.get_output_embeddings()
    if head is not None:
        sizes.append(getattr(head, "out_features", None) or head.weight.shape[0])
    return min(sizes)


def positions_of(config) -> int | None:
    """The longest sequence a model is made for, tokens; None where its configuration names no limit.

    config: the model's. Rotary scaling counts: a factor extends the original positions. ALiBi has no limit.
    """
    config = config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1 or getattr(config, "alibi", False):
        return None
    ropes = getattr(config, "rope_parameters", None) or {}
    for rope in (ropes, *(value for value in ropes.values() if isinstance(value, dict))):
        factor, original = rope.get("factor"), rope.get("original_max_position_embeddings")
        scaled = (
            isinstance(factor, (int, float)) and 1 < factor < 1e6 and rope.get("rope_type") not in (None, "default")
        )
        if scaled:
            positions = max(positions, int(factor * (original or positions)))
    return positions


def require_known_tokens(tokenizer, vocabulary: int, name: str) -> str | None:
    """A sentence on special tokens beyond the model's embedding that nothing uses, None where there are none.

    A padding token among them is replaced by the end-of-sequence token, because padding is always masked. Gemma 3's
    text models, as an example, share a tokenizer with models that read images, and have no row for an image's token.
    Errors: WorkbenchError where the tokenizer has other ids beyond the embedding.
    """
    beyond = {token: number for token, number in tokenizer.get_vocab().items() if number >= vocabulary}
    if not beyond:
        return None
    added = tokenizer.added_tokens_decoder
    template = str(tokenizer.chat_template or "")
    needed = [
        token
        for token, number in sorted(beyond.items(), key=lambda item: item[1])
        if number not in added or not added[number].special or token == tokenizer.eos_token or token in template
    ]
    if needed:
        raise WorkbenchError(
            f"The tokenizer of {name!r} has {len(beyond):,} tokens beyond the {vocabulary:,} rows of the model's"
            f" embedding, such as {needed[0][:40]!r} with the id {beyond[needed[0]]}: it is another model's, or tokens"
            " were added to it alone. Take the tokenizer that was saved with these weights, or enlarge the embedding"
            " (resize_token_embeddings) and save the model again."
        )
    if tokenizer.pad_token in beyond:
        tokenizer.pad_token = tokenizer.eos_token
    return (
        f"The tokenizer has {counted(len(beyond), 'special token')} without a row in the model's embedding, such as"
        f" {min(beyond)[:40]!r}: texts that contain one are refused."
    )
