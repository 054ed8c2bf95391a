"""The Train panel: start, follow and control a run."""
