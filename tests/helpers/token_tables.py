"""Tables as `wb.explain_pair` gives them, made by hand or of any length."""

import numpy as np
import pandas as pd


def by_hand(base=True):
    """Four and five tokens in round numbers, with the end of turn: the lead grows from 0.025 to 0.4 nats per token."""
    rows = [
        ("chosen", 1, 5, "Blue", -1.0, -1.2),
        ("chosen", 2, 6, ",", -0.5, -0.7),
        ("chosen", 3, 7, " mostly", -2.0, -1.5),
        ("chosen", 4, 2, "<|im_end|>", -0.1, -0.1),
        ("rejected", 1, 8, "Green", -3.0, -1.0),
        ("rejected", 2, 6, ",", -1.0, -1.0),
        ("rejected", 3, 9, " I", -1.0, -1.0),
        ("rejected", 4, 10, " think", -1.0, -1.0),
        ("rejected", 5, 2, "<|im_end|>", -0.5, -0.5),
    ]
    table = pd.DataFrame(rows, columns=["side", "position", "token_id", "token", "logp", "base_logp"])
    return table if base else table.drop(columns="base_logp")


def of_length(chosen, rejected, seed=0, token=" word"):
    """Random log-probabilities for so many tokens."""
    chance, rows = np.random.default_rng(seed), []
    for side, length in (("chosen", chosen), ("rejected", rejected)):
        rows.append(
            pd.DataFrame(
                {
                    "side": side,
                    "position": range(1, length + 1),
                    "token_id": 7,
                    "token": token,
                    "logp": -chance.exponential(2, length),
                    "base_logp": -chance.exponential(2, length),
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def with_tokens(chosen, rejected):
    """These texts as tokens, every token equally likely, with an end of turn behind each answer."""
    rows = [
        (side, number, 7, token, -1.0, -1.0)
        for side, tokens in (("chosen", chosen), ("rejected", rejected))
        for number, token in enumerate([*tokens, "<|im_end|>"], 1)
    ]
    return pd.DataFrame(rows, columns=["side", "position", "token_id", "token", "logp", "base_logp"])
