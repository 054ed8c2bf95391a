"""Preference data: files, folders, DataFrames and hub data sets become preference pairs; rows that cannot are refused
and counted.
"""
