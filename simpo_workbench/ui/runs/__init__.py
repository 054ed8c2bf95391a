"""The Runs panel: all runs, their charts over one another, the queue."""
