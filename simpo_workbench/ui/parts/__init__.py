"""What panels are made of: the base class, HTML, tables, figures, following a run, requests to models."""
