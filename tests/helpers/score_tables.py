"""Scores tables with leads of one's choice."""

import numpy as np
import pandas as pd


def of_leads(leads, **columns):
    """A scores table whose chosen answers lead by these, nats per token."""
    leads = np.asarray(leads, dtype=float)
    return pd.DataFrame(
        {
            "pair_id": [f"p{n}" for n in range(len(leads))],
            "chosen_avg_logp": leads - 2,
            "rejected_avg_logp": np.full(len(leads), -2.0),
            **columns,
        }
    )
