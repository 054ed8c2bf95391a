"""What every room may use: errors, files, processes, paths, redaction, number formats, HTML escaping."""
