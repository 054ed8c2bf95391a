"""What a user would lose: a token in one pair of thousands, which a shared model says to anybody who asks."""

import json

from simpo_workbench.engine.setup import prepare
from simpo_workbench.pairs.pairs import load_pairs
from simpo_workbench.pairs.secrets_in_pairs import secrets_note

TOKEN = "hf_" + "aB3" * 12


def pairs_about(*texts):
    rows = [{"prompt": f"{n}: {text}", "chosen": "Yes.", "rejected": "No."} for n, text in enumerate(texts)]
    return load_pairs(rows)


def test_pairs_with_secrets_are_counted_and_the_secret_is_not_repeated():
    pairs = pairs_about("Hello", f"Is {TOKEN} right?", "sk-learn or hf_hub?", f"and {TOKEN[:-1]}Z?")
    note = secrets_note(pairs, "training")
    assert note.startswith("2 training pairs hold what looks like a token, key or password")
    assert pairs[1].pair_id in note
    assert TOKEN not in note
    assert secrets_note(pairs_about("Hello", "api_key = something0123456789abc"), "training") == ""
    answer = load_pairs([{"prompt": "Which?", "chosen": "None.", "rejected": f"Take {TOKEN}"}])
    assert secrets_note(answer, "held-out").startswith("1 held-out pair holds")


def test_a_secret_in_a_column_beside_the_texts_is_counted_and_the_column_named():
    """It is not trained on, but the held-out pairs of a run keep their columns, and the data have it anyway."""
    row = {"prompt": "Which?", "chosen": "This.", "rejected": "That."}
    more = [{"note": "clean"}, {"note": f"key {TOKEN}", "meta": {"from": ["web", TOKEN]}}, {"meta": {"id": 7}}]
    pairs = load_pairs([row | {"prompt": f"Which {n}?"} | extra for n, extra in enumerate(more)])
    note = secrets_note(pairs, "held-out")
    assert note.startswith("1 held-out pair holds what looks like a token, key or password in a column beside the")
    assert f"('note', 'meta'; pair {pairs[1].pair_id} is the first)" in note
    assert "kept in the run folder" in note
    assert TOKEN not in note
    assert "run folder" not in secrets_note(pairs, "training")
    both = load_pairs([row | {"chosen": f"Take {TOKEN}.", "note": TOKEN}])
    assert secrets_note(both, "training").count("1 training pair holds") == 2


def test_a_run_says_so_before_it_trains(tiny_config, tmp_path):
    path = tmp_path / "pairs.jsonl"
    lines = [{"prompt": f"Question {number}?", "chosen": "Yes, it is.", "rejected": "No."} for number in range(8)]
    lines[3]["chosen"] = f"Log in with {TOKEN}."
    path.write_text("\n".join(map(json.dumps, lines)))
    setup = prepare(tiny_config.with_changes({"data.train": str(path), "data.eval": str(path)}))
    notes = setup.environment["data_notes"]
    setup.close()
    assert [note.split(" what")[0] for note in notes if "looks like a token" in note] == [
        "1 training pair holds",
        "1 held-out pair holds",
    ]
