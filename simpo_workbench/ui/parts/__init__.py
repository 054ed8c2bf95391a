"""Building blocks of panels: the base class, HTML, tables, figures, following a run, requests to models."""
