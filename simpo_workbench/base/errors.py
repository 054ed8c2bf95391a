"""The error type that users see, and how another library's error becomes part of its sentence."""


class WorkbenchError(Exception):
    """What was given, what was expected and what to do, in one or two sentences.

    The command line and the panels show only this text.
    """


class SettingWarning(UserWarning):
    """A setting that is known to ruin SimPO, or to do nothing."""


class SecretWarning(UserWarning):
    """A text that is about to be shared holds what looks like a token, key or password."""


class DamageWarning(UserWarning):
    """A part of a run is damaged or lost, and left out of what was asked for."""


def first_line(error: BaseException | str) -> str:
    """The first line of an error's text without its full stop, at most 300 characters; its type when it has no text."""
    lines = str(error).strip().splitlines()
    return (lines[0][:300] if lines else type(error).__name__).rstrip(".")
