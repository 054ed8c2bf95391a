"""DataFrames in, plotly figures out; pure functions."""
