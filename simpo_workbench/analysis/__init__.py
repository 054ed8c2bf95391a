"""DataFrames in, DataFrames and sentences out: metrics, scores, verdicts, loss geometry, leads, votes, differences of
texts.
"""
