"""What a user would lose: the account behind a token that stood in a held-out pair of a run they shared."""

import fake_run
import pandas as pd
import pytest
from click.testing import CliRunner

from simpo_workbench.base.errors import SecretWarning, WorkbenchError
from simpo_workbench.base.files import read_jsonl, write_jsonl
from simpo_workbench.cli.main import main
from simpo_workbench.report.report import report_html, write_report
from simpo_workbench.runs import secret_texts
from simpo_workbench.runs.manifest import Manifest
from simpo_workbench.runs.secret_texts import secrets_sentence

TOKEN = "hf_" + "aB3" * 12


def test_secrets_in_pairs_and_answers_are_said_before_a_report(tmp_path):
    clean = fake_run.fake_run(tmp_path, "clean")
    assert secrets_sentence(clean.folder) == ""
    run = fake_run.fake_run(tmp_path, "told", texts=(f"Is {TOKEN} right?", "Yes.", "No."))
    rows = read_jsonl(run.folder.generations(120))
    rows[0]["answer"] = f"It is {TOKEN}."
    write_jsonl(run.folder.generations(120), rows)
    sentence = secrets_sentence(run.folder)
    assert sentence.startswith("1 held-out pair and 1 sampled answer of this run hold what looks like a token")
    with pytest.warns(SecretWarning, match="1 held-out pair and 1 sampled answer"):
        write_report(run, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert sentence in page
    assert TOKEN not in page
    assert "looks like a token" not in report_html(clean)
    result = CliRunner().invoke(main, ["report", "told", "--root", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert f"Note: {sentence}" in result.stderr


def test_a_secret_in_a_column_beside_the_texts_counts(tmp_path):
    run = fake_run.fake_run(tmp_path, "noted")
    rows = pd.read_parquet(run.folder.pairs)
    rows["note"] = [f"log in with {TOKEN}", *["none"] * (len(rows) - 1)]
    rows.to_parquet(run.folder.pairs)
    assert secrets_sentence(run.folder).startswith("1 held-out pair of this run holds what looks like a token")


def test_texts_are_looked_through_once_until_they_change(tmp_path, monkeypatch):
    run = fake_run.fake_run(tmp_path, total_steps=20)
    looked = []
    monkeypatch.setattr(secret_texts, "holds_known_secret", lambda text: bool(looked.append(text)))
    write_report(run)
    once = len(looked)
    assert once > 0
    write_report(run)
    assert len(looked) == once, "a second report of the same texts"
    rows = read_jsonl(run.folder.generations(20))
    rows[0]["answer"] += " And more."
    write_jsonl(run.folder.generations(20), rows)
    write_report(run)
    assert len(looked) == 2 * once


def test_lost_pairs_are_not_counted_as_pairs_without_secrets(tmp_path):
    run = fake_run.fake_run(tmp_path, total_steps=20)
    Manifest.begin(run.path).seal(run.folder.pairs)
    run.folder.pairs.unlink()
    with pytest.raises(WorkbenchError, match=r"pairs\.parquet of the run .* is lost"):
        secrets_sentence(run.folder)
