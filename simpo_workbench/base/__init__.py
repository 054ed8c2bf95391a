"""Helpers for all packages: errors, files, processes, paths, redaction, number formats, HTML escaping."""
