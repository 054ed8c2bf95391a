"""Model and pairs -> scores, one DataFrame row per pair."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ..analysis.scores import join_texts, pair_texts
from ..base.errors import WorkbenchError
from ..config.run_config import DataConfig, LossConfig
from ..pairs.pairs import Pairs, load_pairs
from . import losses
from .encode.tokens import ChatEncoder
from .forward.attention import row_policy
from .forward.logprobs import PackedScorer, ResponseLogps
from .forward.memory import is_out_of_memory
from .forward.packing import RowPolicy, collate, plan
from .limits import require_fitting_pairs
from .model.models import LoadedModel, weights_unpacked

if TYPE_CHECKING:
    import pandas as pd

#: Tokens that go through the model at once without gradients: enough to keep a GPU busy, few enough to fit anywhere.
SCORING_TOKENS = 4096


def score(
    model: LoadedModel,
    pairs,
    loss: LossConfig | None = None,
    data: DataConfig | None = None,
    max_tokens_per_microbatch=SCORING_TOKENS,
) -> pd.DataFrame:
    """DataFrame with one row per pair, in the order of `pairs`.

    model: from `wb.load_model`; its adapter is on. pairs: from `wb.load_pairs`.
    loss: β and γ/β for rewards and margins (default: LossConfig()).
    data: max_tokens, overlong, template_options and system_prompt (default: DataConfig()).
    Columns: pair_id, prompt, chosen, rejected; chosen_tokens, rejected_tokens (scored ones, the end of turn among
    them); chosen_avg_logp, rejected_avg_logp (nats per token); chosen_reward, rejected_reward, margin (reward units);
    correct (margin > 0), beyond_gamma (margin > γ); loss; gradient_weight (β·σ(γ − margin) for ε = 0); truncated; beta,
    gamma_beta_ratio; then the user's own columns.
    Pairs that do not fit data.max_tokens are absent and counted in `.attrs["report"]`.
    Errors: WorkbenchError when no pair fits, or one is longer than the model's positions.
    """
    pairs = pairs if isinstance(pairs, Pairs) else load_pairs(pairs)
    encoded, report = ChatEncoder.of(model, data).encode_pairs(list(pairs))
    if not encoded:
        raise WorkbenchError(f"No pair can be scored. {report}")
    require_fitting_pairs(model, encoded)
    scorer = PackedScorer(model.model).eval()
    numbers = score_encoded(scorer, encoded, loss or LossConfig(), model, max_tokens_per_microbatch)
    table = join_texts(numbers, pair_texts(pairs))
    table.attrs["report"] = str(report)
    return table


def score_encoded(
    scorer,
    encoded,
    loss: LossConfig,
    loaded: LoadedModel,
    max_tokens_per_microbatch=SCORING_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """DataFrame with the ids and numbers of `score`, without texts, one row per encoded pair in their order.

    progress: as in `response_logps`; DPO scores every pair twice, the second time with the base model.
    """
    logps = response_logps(scorer, encoded, loaded, max_tokens_per_microbatch, progress)
    reference = None
    if loss.kind == "dpo":
        with loaded.base():
            base = response_logps(scorer, encoded, loaded, max_tokens_per_microbatch, progress)
        reference = (base.chosen, base.rejected)
    return score_table(encoded, logps, loss, reference)


@torch.no_grad()
def response_logps(
    scorer,
    encoded,
    loaded: LoadedModel,
    max_tokens_per_microbatch=SCORING_TOKENS,
    progress: Callable[[int, int], None] | None = None,
    policy: RowPolicy | None = None,
    planned: Callable[[list, int, RowPolicy], list[list]] | None = None,
) -> ResponseLogps:
    """Summed log-probabilities and token counts of all pairs, fp64 on the CPU, in the order of `encoded`.

    A micro-batch that does not fit into memory is halved. progress: called after each one with the numbers of pairs
    that are scored and of all pairs. policy: how pairs become rows (default: the fastest way that the model allows).
    planned: which pairs go through together (default: `packing.plan`).
    """
    row_of = {}
    with weights_unpacked(loaded):
        policy = policy or row_policy(loaded.model)
        budget = max_tokens_per_microbatch
        groups = planned(encoded, budget, policy) if planned else plan(encoded, budget, policy)[0]
        while groups:
            group = groups.pop(0)
            try:
                rows = _logps_rows(scorer, collate(group, policy).to(loaded.device))
            except Exception as error:
                if not is_out_of_memory(error) or len(group) == 1:
                    raise
                groups[:0] = [group[: len(group) // 2], group[len(group) // 2 :]]
                continue
            row_of |= dict(zip([pair.pair_id for pair in group], rows, strict=True))
            if progress:
                progress(len(row_of), len(encoded))
    return ResponseLogps(*torch.stack([row_of[pair.pair_id] for pair in encoded]).unbind(dim=1))


def _logps_rows(scorer, batch):
    """(pairs, 4), fp64 on the CPU: summed log-probabilities and scored tokens of chosen and rejected."""
    logps = scorer(batch)
    columns = (logps.chosen, logps.rejected, logps.chosen_tokens, logps.rejected_tokens)
    return torch.stack([column.double() for column in columns], dim=1).cpu()


def score_table(encoded, logps: ResponseLogps, loss: LossConfig, reference=None) -> pd.DataFrame:
    """DataFrame with the ids and numbers of `score`, from log-probabilities; pure.

    reference: as in `losses.pair_losses`.
    """
    import pandas as pd

    sums = (logps.chosen, logps.rejected, logps.chosen_tokens, logps.rejected_tokens)
    chosen_rewards, rejected_rewards = losses.rewards(loss, *sums, reference)
    margins = chosen_rewards - rejected_rewards
    return pd.DataFrame(
        {
            "pair_id": [pair.pair_id for pair in encoded],
            "chosen_tokens": logps.chosen_tokens.long().numpy(),
            "rejected_tokens": logps.rejected_tokens.long().numpy(),
            "chosen_avg_logp": logps.chosen_avg.numpy(),
            "rejected_avg_logp": logps.rejected_avg.numpy(),
            "chosen_reward": chosen_rewards.numpy(),
            "rejected_reward": rejected_rewards.numpy(),
            "margin": margins.numpy(),
            "correct": (margins > 0).numpy(),
            "beyond_gamma": (margins > loss.target_margin).numpy(),
            "loss": losses.pair_losses(loss, *sums, reference).numpy(),
            "gradient_weight": losses.gradient_weights(loss, margins).numpy(),
            "truncated": [pair.truncated for pair in encoded],
            "beta": loss.beta,
            "gamma_beta_ratio": loss.target_margin / loss.beta,
        }
    )
