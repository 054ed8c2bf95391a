"""What comes from strangers is tried in a process of its own, within limits of time and memory."""
