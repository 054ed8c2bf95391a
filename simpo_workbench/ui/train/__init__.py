"""The Train panel: start, follow and steer a run."""
