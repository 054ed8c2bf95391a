"""A run on disk and the process behind it: folder, status, requests, launching, the queue, models elsewhere."""
