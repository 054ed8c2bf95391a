"""What several panels are made of: the panel itself, escaping, tables, figures, following a run."""
