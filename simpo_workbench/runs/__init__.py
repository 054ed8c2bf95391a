"""A run on disk and the process behind it: folder, status, requests and replies, launching, the queue, models in other processes."""
