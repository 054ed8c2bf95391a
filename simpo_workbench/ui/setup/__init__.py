"""The Setup panel: every setting in a form, and the same as Python, YAML and a command."""
