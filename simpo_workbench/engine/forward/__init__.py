"""From token ids to log-probabilities: packing, attention, the response head, memory."""
