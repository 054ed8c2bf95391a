"""Everything that needs torch: training, scoring, sampling, and the worker process."""
