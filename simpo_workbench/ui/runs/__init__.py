"""The Runs panel: all runs, several runs in the same charts, the queue."""
