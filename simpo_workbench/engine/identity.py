"""What a run trains on, by content: settings, pairs, token ids, tokenizer, template, base weights, adapter."""

import hashlib
import json
from pathlib import Path

from ..base.errors import WorkbenchError
from ..base.hashes import decides_numbers, fingerprint
from ..runs.verified import FROZEN
from .encode.encoded_pairs import tokenizer_hash

#: What a resumed run must still train on, in the words of the sentence that refuses another.
_SAME = {
    "config_sha256": "its configuration",
    "train_pairs_sha256": "the training pairs",
    "held_out_pairs_sha256": "the held-out pairs",
    "final_pairs_sha256": "the final pairs",
    "train_ids_sha256": "the token ids of the training pairs (tokenizer, template or their versions)",
    "held_out_ids_sha256": "the token ids of the held-out pairs (tokenizer, template or their versions)",
    "final_ids_sha256": "the token ids of the final pairs (tokenizer, template or their versions)",
    "template_sha256": "the chat template",
    FROZEN: "the values that its template is given (the day, thinking)",
    "base": "the weights of the base model",
    "adapter": "the adapter that it began with (model.adapter)",
}
#: Facts on folders of weights: what counts is the files' content, wherever the folder is.
_WEIGHTS = ("base", "adapter")


def identity_of(config, loaded, train, held_out, final, environment, total_steps) -> dict:
    """{fact: value} of what a run trains on, for its manifest.

    train, held_out, final: EncodedPairs. environment: what environment.json says, with the hashes of settings and
    pairs. Errors: WorkbenchError where the weights can no longer be read.
    """
    hashes = ("config_sha256", "train_pairs_sha256", "held_out_pairs_sha256", "final_pairs_sha256")
    template = json.dumps(loaded.tokenizer.chat_template, sort_keys=True)
    return {
        **{name: environment[name] for name in hashes},
        "train_ids_sha256": train.content_hash,
        "held_out_ids_sha256": held_out.content_hash,
        "final_ids_sha256": final.content_hash,
        "tokenizer_sha256": tokenizer_hash(loaded.tokenizer),
        "template_sha256": hashlib.sha256(template.encode()).hexdigest(),
        FROZEN: environment[FROZEN],
        "base": _weights(loaded.folder),
        "adapter": _weights(Path(config.model.adapter).expanduser()) if config.model.adapter else None,
        "total_steps": total_steps,
    }


def _weights(folder: Path):
    """{"folder", "files"} of a folder of weights, with the fingerprint of each file."""
    try:
        files = fingerprint(folder)
    except OSError as error:
        raise WorkbenchError(f"The weights in {str(folder)!r} cannot be read: {error.strerror}.") from None
    if not any(name.endswith(".safetensors") for name in files):
        raise WorkbenchError(f"The weights in {str(folder)!r} are no longer there. Put them back and start again.")
    return {"folder": str(folder.resolve()), "files": files}


def require_same(name: str, before: dict, now: dict) -> None:
    """Raise WorkbenchError if a run would go on with something else than it began with: another run under an old name.

    before: what is known of the run `name`, which may be less. now: its `identity_of`.
    """
    facts = [fact for fact in _SAME if fact in before and fact in now and not _same(fact, before[fact], now[fact])]
    changed = [_SAME[fact] for fact in facts if fact.replace("_ids_", "_pairs_") not in facts or "_ids_" not in fact]
    if changed:
        raise WorkbenchError(
            f"The run {name!r} cannot go on: {' and '.join(changed)} changed since it was stopped. Put them back, or"
            " start a new run."
        )


def _same(fact, before, now):
    if fact not in _WEIGHTS or before is None or now is None:
        return before == now
    old, new = (
        {name: facts for name, facts in weights.get("files", {}).items() if decides_numbers(name)}
        for weights in (before, now)
    )
    if not old:  # sealed by a version that looked for the files of a hub or demo model in a folder that did not exist
        return True
    return old.keys() == new.keys() and all(
        old[name].get(key, value) == value for name, facts in new.items() for key, value in facts.items()
    )
