"""What a run is asked to be: the settings with their bounds and help, YAML, presets, warnings, changes while it
trains.
"""
