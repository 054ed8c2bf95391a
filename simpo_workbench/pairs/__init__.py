"""Preference pairs from files, folders, DataFrames and hub data sets; unusable rows are refused and counted."""
