"""The one error type that users see."""


class WorkbenchError(Exception):
    """What was given, what was expected and what to do, in one or two sentences. The command line and the panels show only this text."""
