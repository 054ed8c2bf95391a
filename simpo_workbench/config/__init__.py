"""The settings of a run: defaults, bounds and help; YAML, presets, warnings, changes during training."""
