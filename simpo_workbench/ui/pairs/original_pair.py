"""A run's held-out pair with the messages that it was scored with: the run's tables hold prompts as readable text."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ...base.errors import WorkbenchError
from ...config.run_config import DEMO
from ...pairs.data_sets import load_source
from ...pairs.pair import pair_id
from ...runs.run import Run
from ...runs.verified import read_texts

_OUR_ID = re.compile(r"[0-9a-f]{16}")  # anything else is the user's own name, which does not follow from the content


def original_pair(run: Run, pair: dict | str) -> dict:
    """The row (prompt as messages, chosen, rejected) of a pair: a row of the run's tables, or a held-out pair's id.

    A prompt of messages is returned as it is. The readable text of several turns is not what was scored, so their
    messages are looked up in the run's data by the pair_id, which follows from the content.
    Errors: WorkbenchError when the run has no such pair, or its messages are no longer in its data.
    """
    row = _held_out(run, pair) if isinstance(pair, str) else pair
    if not isinstance(row, Mapping) or not {"prompt", "chosen", "rejected"} <= row.keys():
        raise WorkbenchError(
            "A pair is a pair_id of the run's held-out pairs, or a row with prompt, chosen and rejected, such as one of"
            " pairs.df or run.scores."
        )
    prompt, texts = row["prompt"], {"chosen": row["chosen"], "rejected": row["rejected"]}
    if not isinstance(prompt, str):
        return {"prompt": [dict(turn) for turn in prompt], **texts}
    messages, wanted = [{"role": "user", "content": prompt}], str(row.get("pair_id", ""))
    if not _OUR_ID.fullmatch(wanted) or pair_id(messages, **texts) == wanted:
        return {"prompt": messages, **texts}
    return _looked_up(run, wanted)


def _held_out(run, wanted):
    if run.folder.pairs.is_file():
        table = read_texts(run.folder, ["pair_id", "prompt", "chosen", "rejected"])
        if len(rows := table[table["pair_id"] == wanted]):
            return rows.iloc[0].to_dict()
    raise WorkbenchError(
        f"The run {run.name!r} has no held-out pair {wanted[:40]!r}: give a pair_id of run.scores, or the pair itself"
        " as a row."
    )


def _looked_up(run, wanted):
    data = run.config.data
    source, side = (data.eval or DEMO, "eval") if data.eval or data.train == DEMO else (data.train, "train")
    pair, why = None, "no longer holds it"
    try:
        pair = next((pair for pair in load_source(source, side, data) if pair.pair_id == wanted), None)
    except WorkbenchError as error:
        why = f"cannot be read: {str(error).rstrip('.')}"
    if pair is None:
        raise WorkbenchError(
            f"The pair {wanted} has a prompt of several turns, and the run keeps only its readable text; its data"
            f" ({source}) {why}. Give the pair with its messages: a row of wb.load_pairs(...).df."
        )
    return {"prompt": [dict(turn) for turn in pair.prompt], "chosen": pair.chosen, "rejected": pair.rejected}
