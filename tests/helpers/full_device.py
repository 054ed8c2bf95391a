"""A device that is full."""

import torch


class OutOfMemory:
    """A scorer whose device is full whenever more than so many tokens come at once."""

    def __init__(self, scorer, most):
        self.scorer, self.most, self.refused = scorer, most, []

    def __call__(self, batch):
        if batch.tokens > self.most:
            self.refused.append(batch.tokens)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return self.scorer(batch)
