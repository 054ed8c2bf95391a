"""What a user would lose to a text that steers their terminal: hidden lines, a forged verdict."""

import io
import json
import re
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from simpo_workbench.base.escape import json_for_terminal, shown_controls
from simpo_workbench.cli import gate
from simpo_workbench.cli.main import main

CONTROLS = [chr(code) for code in [*range(32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]]
HOSTILE = "good\x1b[2K\x1b[1Averdict\x1b]0;title\x07 \x9b31m \r\u202ekcab \x08\x7f end"


def test_every_control_character_is_shown_in_as_many_characters():
    """An answer of 20 characters that prints as 8 hides the rest of it."""
    for character in CONTROLS:
        shown = shown_controls(f"a{character}b")
        assert len(shown) == 3
        assert (character in "\n\t") == (shown == f"a{character}b")
    assert shown_controls("\x1b\x00\x7f\x9b\u202e") == "␛␀␡\ufffd\ufffd"
    assert shown_controls("naïve 🦢 \u00a0日本語\n\tx") == "naïve 🦢 \u00a0日本語\n\tx"
    shown_controls("name\udcff.jsonl").encode()  # a file name that is no UTF-8 must not end the command


def test_json_keeps_its_values():
    """A program that reads the output gets what the data held; a terminal that shows it is safe all the same."""
    values = {"texts": ["".join(CONTROLS), "\udc80", "日本語"]}
    text = json_for_terminal(json.dumps(values, ensure_ascii=False, indent=1))
    assert not set(CONTROLS) - {"\n", "\t"} & set(text)
    assert json.loads(text) == values


@pytest.fixture
def terminal(monkeypatch):
    """A function that puts the gate before two streams that are taken for terminals in color, and returns them."""

    def begin():  # in the test itself: pytest sets its own streams between fixture and test
        streams = io.StringIO(), io.StringIO()
        for name, stream in zip(("stdout", "stderr"), streams, strict=True):
            stream.isatty = lambda: True
            monkeypatch.setattr(sys, name, stream)
        gate.show_controls()
        gate.show_controls()  # once is enough
        return streams

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return begin


def test_what_is_printed_by_any_means_is_shown(terminal):
    output, errors = terminal()
    print(HOSTILE)
    click.echo(HOSTILE)
    click.echo(HOSTILE, err=True)
    sys.stderr.writelines([HOSTILE])
    for text, times in ((output.getvalue(), 2), (errors.getvalue(), 2)):
        assert not set(CONTROLS) - {"\n"} & set(text)
        assert text.count("good␛[2K␛[1Averdict␛]0;title␇") == times


def test_rich_keeps_its_own_colors_and_sends_nothing_of_a_text(terminal):
    """A table without colors would be poor; a red that the text brought along is not ours."""
    output, _ = terminal()
    table = Table("name")
    table.add_row(Text(HOSTILE, style="bold red"))
    table.add_row(HOSTILE)
    console = gate.output()
    console.print(table)
    console.print(HOSTILE)
    console.print(Text.assemble(("mark", "green"), HOSTILE))
    text = output.getvalue()
    assert "\x1b[1;31m" in text
    assert "\x1b[32mmark" in text
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)  # colors
    assert not set(CONTROLS) - {"\n"} & set(plain)
    assert plain.count("␛[2K") >= 4


def test_progress_bars_still_move(terminal):
    """Bars of libraries rewrite their line; ours moves the cursor by rich."""
    _, errors = terminal()
    sys.stderr.write("\r 50 %|█████     |")
    sys.stderr.write("\n")
    sys.stderr.write("\x1b[A\x1b[A")
    assert errors.getvalue() == "\r 50 %|█████     |\n\x1b[A\x1b[A"
    with Progress(console=gate.progress_output()) as bar:
        bar.add_task(HOSTILE)
    moved = errors.getvalue()
    assert "\x1b[?25l" in moved  # the cursor is hidden while the bar is drawn
    assert "␛[2K␛[1Averdict" in moved


def test_the_command_line_passes_through_the_gate(tmp_path):
    """A run's name, a path, a column: whatever stands in an error or a list."""
    result = CliRunner().invoke(main, ["show", HOSTILE, "--root", str(tmp_path)])
    assert result.exit_code != 0
    result_of_wrong_use = CliRunner().invoke(main, [HOSTILE])
    for output in (result.output, result_of_wrong_use.output):
        assert "good" in output
        assert not set(CONTROLS) - {"\n"} & set(output)


def test_no_other_console_is_made():
    """A console of its own would lead around the gate."""
    package = Path(gate.__file__).parents[1]
    makers = [path.name for path in package.rglob("*.py") if re.search(r"\bConsole\(", path.read_text())]
    assert makers == []
    assert issubclass(gate.ShownConsole, Console)
