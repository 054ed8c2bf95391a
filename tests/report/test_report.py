"""The report: one file to hand on.

It must carry everything, ask for nothing, run nothing of what it quotes, and say what the run says.
"""

import itertools
import json
import re
from html.parser import HTMLParser

import pytest
from fake_run import fake_run

from simpo_workbench.analysis import doctor
from simpo_workbench.base.errors import WorkbenchError
from simpo_workbench.base.files import write_json
from simpo_workbench.report import facts
from simpo_workbench.report.report import report_html, write_report

HOSTILE = (
    """</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">'"&amp; \u2028"""
    " שלום 🦢 {{ 7 * 7 }}"
)


class Page(HTMLParser):
    """What a browser would make of a page: its tags with attributes, its visible text, and its scripts."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.text, self.open = [], {}, [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        tag, attrs = self.open[-1] if self.open else ("", {})
        if tag == "script":
            key = attrs.get("id", f"script {len(self.scripts)}")
            self.scripts[key] = self.scripts.get(key, "") + data
        elif tag != "style":
            self.text.append(data)

    @property
    def words(self):
        return " ".join("".join(self.text).split())

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def figures(self):
        return json.loads(self.scripts["figures"])


def page(run):
    return Page(report_html(run))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return fake_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def finished_page(finished):
    return page(finished)


# ---- one file


def test_the_report_lies_in_the_run_folder_and_replaces_the_old_one(tmp_path):
    run = fake_run(tmp_path, last_step=0, state="training")
    (run.path / "report.html").write_text("old")
    assert write_report(run) == run.path / "report.html"
    assert Page((run.path / "report.html").read_text(encoding="utf-8")).words.startswith("plain-answers-0412")
    assert [path.name for path in run.path.iterdir() if path.suffix == ".tmp"] == []


def test_the_report_goes_where_it_is_wanted_or_says_why_not(tmp_path):
    run = fake_run(tmp_path, last_step=0)
    assert write_report(run, tmp_path / "mine.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    with pytest.raises(WorkbenchError, match=r"nowhere.*cannot be written"):
        write_report(run, tmp_path / "nowhere" / "mine.html")


def test_nothing_is_fetched(finished, finished_page):
    loading = [
        (tag, name, value)
        for tag, attrs in finished_page.tags
        for name, value in attrs.items()
        if name in ("src", "href", "srcset", "data", "action")
    ]
    assert loading == [("link", "href", "data:,")], (
        "an address in the page is a request, or dead where there is no network"
    )
    style = re.search(r"<style>(.*?)</style>", report_html(finished), re.S)[1]
    assert "@import" not in style
    assert "url(" not in style
    policy = next(
        attrs["content"] for attrs in finished_page.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy


def test_plotly_is_inside_once(finished_page):
    from plotly.offline import get_plotlyjs_version

    assert [text for text in finished_page.scripts.values() if f"plotly.js v{get_plotlyjs_version()}" in text[:200]]
    assert len(finished_page.all("script")) == 3


# ---- what it says


def test_verdict_headline_and_state(finished_page):
    words = finished_page.words
    assert words.startswith(
        "plain-answers-0412 · SimPO Workbench plain-answers-0412 demo model (SmolLM2-135M-Instruct) · NF4 + LoRA r16 ·"
        " β 2 · γ/β 0.5 (γ 1) finished Step 120 of 120 · Finished."
    )
    assert words.index("Healthy: accuracy on held-out pairs 0.29 → 0.75") < words.index("In numbers")


def test_a_collapse_is_told_first_with_cause_and_remedy(tmp_path):
    run = fake_run(tmp_path, ruined=True)
    text = report_html(run)
    words = Page(text).words
    verdict = doctor.diagnose(run.records, 120)[0]
    assert verdict.kind == "collapse"
    assert f"collapse{verdict.seen} Why: {verdict.cause} What to do: {verdict.remedy}" in words
    assert words.index("The model is collapsing") < words.index("In numbers")
    assert tiles(text)["recommended"] == ("step 0", "the base model: no trained step is healthy")
    assert tiles(text)["chosen drift"][0] == "−2.00 nats/token"


def tiles(text):
    """name -> (value, fact) as they are written in the description list."""
    found = re.findall(r"<div title=\".+?\"><dt>(.*?)</dt><dd>(.*?)</dd><dd class=\"fact\">(.*?)</dd></div>", text)
    return {name: (value, fact) for name, value, fact in found}


def test_tiles_carry_value_n_and_interval(finished):
    shown = tiles(report_html(finished))
    assert shown["chosen ahead"] == (
        "0.29 → 0.75",
        "24 held-out pairs, change +0.46, 95 % +0.21 to +0.64",
    )  # 7 and 18 of 24: 11 joined, none left; 12 / 26 − 1 / 26 ± 1.96 · √((13 / 26 − (11 / 26)²) / 26)
    assert shown["beyond γ"] == ("0.00 → 0.29", "24 held-out pairs, change +0.29, 95 % +0.07 to +0.47")
    assert shown["chosen drift"] == ("−0.10 nats/token", "24 held-out pairs, 95 % −0.128 to −0.072; rejected −0.59")
    assert shown["repeated 4-grams"][0] == "0.06 → 0.08"
    assert shown["answers end properly"] == ("0.67 → 1.00", "3 answers, change +0.33, 95 % −0.46 to +0.86")
    assert shown["answer length"] == (
        "63 → 23 tokens",
        "3 answers, change −40, 95 % −97 to +17; chosen in the data: 19",
    )
    assert shown["recommended"][0] == "step 120"
    assert shown["speed"] == ("2.1 pairs/s", "median of 120 steps")
    assert shown["peak memory"] == ("1.9 GB", "most of 120 steps")


def test_right_answers_have_a_tile_a_column_and_a_mark_beside_each_answer(tmp_path, finished):
    text = report_html(fake_run(tmp_path, checked=True))
    # 1 of 2 lost: 1 / 4 − 2 / 4 ± 1.96 · √((3 / 4 − 0.25²) / 4)
    fact = "2 checked answers, change −0.50, 95 % −1.00 to +0.56; became wrong: 1; became right: 0"
    assert tiles(text)["right answers"] == ("1.00 → 0.50", fact)
    words = Page(text).words
    assert "right answers" in words
    assert "base · step 0 · ✓ right" in words
    assert "tuned · step 120 · ✗ wrong" in words
    assert "Reference: Paris & nothing <else>." in words
    assert (words.count("✓ right"), words.count("✗ wrong"), words.count("Reference:")) == (3, 1, 1)
    without = report_html(finished)
    assert "right answers" not in tiles(without)
    assert not {"✓", "✗", "Reference:", "became wrong"} & set(Page(without).words.split())


def test_a_tile_of_a_metric_without_cases_says_only_what_is_known(finished, monkeypatch):
    monkeypatch.setattr(facts, "TILES", ("loss", "scoring_noise"))
    shown = tiles(report_html(finished))
    assert shown["loss"][0].endswith(" mean per pair")
    assert shown["loss"][1] == ""
    assert shown["scoring noise"] == ("–", "not recorded by this run")


def test_charts_hold_the_metrics_in_both_themes(finished, finished_page):
    metrics = finished.metrics
    evaluations = metrics[metrics["kind"] == "eval"]
    assert set(finished_page.figures) == {"chart-training", "chart-rewards", "chart-histogram", "chart-scatter"}
    for theme, color in (("light", "#ffffff"), ("dark", "#111111")):
        figure = finished_page.figures["chart-training"][theme]
        assert figure["layout"]["paper_bgcolor"] == color
        drawn = next(trace for trace in figure["data"] if trace.get("name") == "chosen")
        assert numbers(drawn["y"]) == pytest.approx(evaluations["eval/logps/chosen_drift"].tolist())
    steps = next(
        trace
        for trace in finished_page.figures["chart-training"]["light"]["data"]
        if trace.get("name") == "loss, training, each step"
    )
    assert numbers(steps["y"]) == pytest.approx(metrics.loc[metrics["kind"] == "train", "loss"].tolist())


def numbers(packed):
    """plotly writes arrays as base64 of their bytes."""
    import base64

    import numpy as np

    return (
        list(np.frombuffer(base64.b64decode(packed["bdata"]), packed["dtype"])) if isinstance(packed, dict) else packed
    )


def test_every_chart_is_described_and_its_numbers_are_a_table(finished, finished_page):
    charts = [attrs for attrs in finished_page.all("div") if attrs.get("role") == "img"]
    assert [chart["id"] for chart in charts] == ["chart-training", "chart-rewards", "chart-histogram", "chart-scatter"]
    assert all(len(chart["aria-label"]) > 60 for chart in charts)
    assert "chosen answers stand at −0.10 and rejected ones at −0.59 nats per token" in charts[0]["aria-label"]
    assert "7 of 24 pairs before and 18 of 24 after" in charts[2]["aria-label"]
    row = re.search(r'<tr><th scope="row">60</th>(.*?)</tr>', report_html(finished))[1]
    record = next(one for one in finished.records if one["kind"] == "eval" and one["step"] == 60)
    assert re.findall(r">([^<]+)<", row)[1] == f"{record['eval/logps/chosen_drift']:+.3f}".replace("-", "−")


def test_headings_are_in_order_and_tables_have_headers(finished_page):
    levels = [int(tag[1]) for tag, _ in finished_page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels)), levels
    assert finished_page.all("html") == [{"lang": "en"}]
    assert {attrs.get("scope") for attrs in finished_page.all("th")} == {"row", "col"}


def test_answers_stand_side_by_side_with_their_facts(finished_page):
    words = finished_page.words
    assert words.count("base · step 0") == words.count("tuned · step 120") == 3
    assert "Sample prompt 1 of 3What is the capital of France?" in words
    assert "62 tokens · repeated 4-grams 0.06 · cut off" in words
    assert "22 tokens · repeated 4-grams 0.06 · ends properly" in words
    assert "step 60" not in words, "only the first and the last sampled step"


def test_flips_are_counted_and_the_pairs_that_changed_most_come_first(finished, finished_page):
    compared = finished.compare()
    flipped = compared[compared["flip"] != ""]
    assert (
        "Of 24 pairs 11 turned right, 0 turned wrong, 13 stayed as they were. The 20 that changed most are below."
        in finished_page.words
    )
    shown = re.findall(r'<th scope="row" dir="auto">(pair-\d+)</th>', report_html(finished))
    assert len(shown) == 20
    assert set(shown[:11]) == set(flipped["pair_id"])
    changes = compared.set_index("pair_id")["lead_change"].abs()
    assert changes[shown[:11]].is_monotonic_decreasing
    assert changes[shown[11:]].is_monotonic_decreasing


def test_the_final_pairs_have_a_section_and_the_recommended_step_their_result(tmp_path, finished_page):
    run = fake_run(tmp_path, final=30)
    parsed = page(run)
    assert f"Final pairs {run.final}" in parsed.words
    change = run.final.changes["rewards/accuracies"]
    assert f"{change.up} up, {change.down} downbetter" in parsed.words
    assert tiles(report_html(run))["recommended"][1].endswith(
        f"; on 30 final pairs, which did not choose it, {run.final.brief}"
    )
    assert "Final pairs 24 held-out pairs are too few. Course" in finished_page.words


def test_pairs_that_crossed_zero_within_the_noise_are_said_to(tmp_path):
    """They are neither flips nor "still right"."""
    run = fake_run(tmp_path, noise=0.2)
    within = run.compare()["became"].value_counts()["within the noise"]
    text = report_html(run)
    assert f"{within} changed sides within the noise of scoring, " in text
    assert len(re.findall(r"\nwithin the noise</td>", text)) == within


def test_data_notes_configuration_and_environment_are_there(finished, finished_page):
    words = finished_page.words
    assert "Held-out pairs: 24 pairs, none dropped." in words
    assert " ".join(finished.config.to_yaml().split()) in words
    assert "versions torch2.13.0" in words
    assert "data_notes" not in words


# ---- hostile texts


def test_foreign_text_is_quoted_not_run(tmp_path):
    run = fake_run(
        tmp_path,
        texts=(HOSTILE, HOSTILE + " chosen", HOSTILE + " rejected"),
        prompts=[HOSTILE],
        changes={"model.name": HOSTILE, "data.system_prompt": HOSTILE},
        state="failed",
        message=HOSTILE,
    )
    environment = run.environment
    environment["data_notes"] = [HOSTILE]
    environment["versions"][HOSTILE] = HOSTILE
    write_json(run.folder.environment, environment)
    run.folder.append_metrics({"kind": "event", "step": 60, "event": HOSTILE, "text": HOSTILE})
    answers = [{"step": 120, "prompt": HOSTILE, "answer": HOSTILE, "tokens": 3, "ended": True, "repeated_4grams": 0.0}]
    run.folder.generations(120).write_text("".join(json.dumps(one) + "\n" for one in answers), encoding="utf-8")

    text = report_html(run)
    parsed = Page(text)
    assert parsed.all("img") == []
    assert len(parsed.all("script")) == 3
    assert not any(name.startswith("on") for _, attrs in parsed.tags for name in attrs)
    quoted = " ".join(HOSTILE.split())
    assert parsed.words.count(quoted) >= 9, (
        "model, message, three pair texts, prompt, answer, note, version, configuration …"
    )
    assert "window.hacked" not in "".join(script for key, script in parsed.scripts.items() if key != "figures")
    assert "<" not in parsed.scripts["figures"]
    labels = [note["text"] for note in parsed.figures["chart-training"]["light"]["layout"]["annotations"]]
    assert any("&lt;/script&gt;" in label for label in labels)
    assert not any("<script" in label or "<img" in label for label in labels)


def test_hostile_pair_ids_are_quoted(tmp_path):
    import pandas as pd

    run = fake_run(tmp_path)
    for path in [run.folder.pairs, *(run.path / "scores").glob("*.parquet")]:
        frame = pd.read_parquet(path)
        frame["pair_id"] = [HOSTILE if name == "pair-000" else name for name in frame["pair_id"]]
        frame.to_parquet(path, index=False)
    parsed = page(run)
    assert parsed.all("img") == []
    assert " ".join(HOSTILE.split()) in parsed.words


# ---- live, failed, empty


def test_a_live_run_says_where_it_stands(tmp_path):
    parsed = page(fake_run(tmp_path, last_step=64, state="training", message=""))
    assert re.search(r"training Step 64 of 120 · as of \d{4}-\d\d-\d\d \d\d:\d\d; the run goes on", parsed.words)
    assert parsed.figures["chart-training"]["light"]["layout"]["xaxis"]["range"] == [0.0, 120.0]
    assert "tuned · step 60" in parsed.words


def test_a_failed_run_says_why_above_all(tmp_path):
    words = page(
        fake_run(tmp_path, last_step=30, state="failed", message="Step 31: the loss is not finite for pairs pair-003.")
    ).words
    assert words.index("Step 31: the loss is not finite for pairs pair-003.") < words.index("In numbers")
    assert words.count("the loss is not finite") == 1


def test_a_run_with_only_step_zero_shows_the_base_model(tmp_path):
    parsed = page(fake_run(tmp_path, last_step=0, state="training", message=""))
    words = parsed.words
    assert "Too early to tell" in words
    assert "base · step 0" in words
    assert "tuned · step" not in words
    assert set(parsed.figures) == {"chart-training", "chart-rewards", "chart-histogram"}
    assert "0.29" in words
    assert "turned right" not in words


def test_a_run_without_answers_says_which_setting_samples_them(tmp_path):
    words = page(fake_run(tmp_path, prompts=[], changes={"generation.held_out_prompts": 0})).words
    assert (
        "No answers were sampled: generation.prompts and generation.held_out_prompts say which prompts are answered."
        in words
    )
    assert "repeated 4-grams–not recorded by this run" in words


def test_a_run_that_has_only_a_configuration(tmp_path):
    from simpo_workbench.config.run_config import RunConfig
    from simpo_workbench.runs.folder import new_run_folder
    from simpo_workbench.runs.run import Run

    folder = new_run_folder(tmp_path, "fresh", "x")
    RunConfig().to_yaml(folder.config)
    write_json(folder.status, {"state": "failed", "message": "No training pair is left.", "total_steps": 0})
    parsed = page(Run(folder))
    assert "No training pair is left." in parsed.words
    assert "No scores yet" in parsed.words
    assert set(parsed.figures) == {"chart-training", "chart-rewards"}


def test_dpo_shows_no_gamma(tmp_path):
    text = report_html(fake_run(tmp_path, changes={"loss.kind": "dpo"}))
    assert "· DPO · β 2" in Page(text).words
    assert "beyond γ" not in tiles(text)
    assert "γ/β" not in [
        note["text"] for note in Page(text).figures["chart-histogram"]["light"]["layout"]["annotations"]
    ]
