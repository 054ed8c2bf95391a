"""What every room may use: errors, files, processes, redaction, paths, numbers as people read them, escaping.

Imports nothing else of the package.
"""
