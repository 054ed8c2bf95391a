"""Numbers as people read them: signs, durations, memory, counts; and texts cut to one line."""

from __future__ import annotations


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign and a true minus: "+0.04", "−0.42"; "+0.00" for what rounds to zero."""
    return f"{value:+z.{digits}f}".replace("-", "−")


def significant(value: float) -> str:
    """A number with two significant digits: "0.042", "2.1", "214"."""
    return f"{value:,.0f}" if abs(value) >= 9.95 else f"{value:.2g}"


def duration(seconds: float | None) -> str:
    """A length of time: "1 min 04 s", "2 h 05 min"; "?" for None."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def memory(size_bytes: float) -> str:
    """Bytes as gigabytes with two significant digits: "1.9 GB"."""
    return f"{significant(size_bytes / 1e9)} GB"


def counted(number: int, noun: str) -> str:
    """A count with its noun: "1 pair", "12,000 pairs"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def in_one_line(text: str, most: int = 110) -> str:
    """A text without line breaks, cut to `most` characters, for a menu."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
