"""Warnings, before the run starts, of settings that are known to ruin SimPO runs or to do nothing."""

from __future__ import annotations

from .held_lora import contradictions, held_lora

#: Highest LoRA learning rate that reports on 7B models call stable (1e-6 … 5e-5 in the reports of users of the paper's
#: code, TRL and LLaMA-Factory).
HIGHEST_REPORTED_LORA_RATE = 5e-5
#: Measured with the demo model on an NF4 base: at 2e-4 repetition doubles, at 1e-3 the model is ruined while accuracy
#: still looks good.
RUINOUS_RATE = 2e-4
#: Rates below this are rates of full fine-tuning (the paper: 3e-7 … 1e-6); an adapter hardly moves with them.
LOWEST_USEFUL_LORA_RATE = 1e-6
#: The paper's settings lie between γ/β 0.1 and 0.8 and β 2 and 10; its ablation goes up to γ/β 1.6.
HIGHEST_TRIED_GAMMA_BETA_RATIO = 1.6
LOWEST_USEFUL_BETA, HIGHEST_TRIED_BETA = 1.0, 10.0
#: The DPO paper's own range ends here.
HIGHEST_USEFUL_DPO_BETA = 0.5
MOST_USEFUL_EPOCHS = 3
FEWEST_PAIRS_PER_STEP = 4


def config_warnings(config) -> list[str]:
    """A sentence for each setting of a RunConfig that is known to ruin SimPO or to do little."""
    rate, loss, training = config.training.learning_rate, config.loss, config.training
    sentences = []
    if rate >= RUINOUS_RATE:
        sentences.append(
            f"training.learning_rate {rate:g} is high enough to ruin the model: chosen answers lose their probability"
            " and answers turn into repetition while accuracy looks good. Start near 1e-4 for small models,"
            f" {HIGHEST_REPORTED_LORA_RATE:g} or below for 7B."
        )
    elif rate > HIGHEST_REPORTED_LORA_RATE and config.model.name != "demo":
        sentences.append(
            f"training.learning_rate {rate:g} is above what reports on 7B models with LoRA call stable (1e-6 to"
            f" {HIGHEST_REPORTED_LORA_RATE:g}). Small models tolerate more; watch the log-probability of chosen answers"
            " and the repetition."
        )
    if rate < LOWEST_USEFUL_LORA_RATE:
        sentences.append(
            f"training.learning_rate {rate:g} is a rate for full fine-tuning; an adapter hardly moves with it. LoRA"
            f" wants 1e-6 to {HIGHEST_REPORTED_LORA_RATE:g}."
        )
    if loss.has_target_margin:
        if loss.beta < LOWEST_USEFUL_BETA:
            sentences.append(
                f"loss.beta {loss.beta:g} is on DPO's scale; SimPO averages over tokens and wants 2 to 10, else the"
                " loss hardly pulls."
            )
        if loss.beta > HIGHEST_TRIED_BETA:
            sentences.append(
                f"loss.beta {loss.beta:g} is above the highest value the paper tried ({HIGHEST_TRIED_BETA:g}): most"
                " pairs saturate at once."
            )
        if loss.gamma_beta_ratio > HIGHEST_TRIED_GAMMA_BETA_RATIO:
            sentences.append(
                f"loss.gamma_beta_ratio {loss.gamma_beta_ratio:g} asks for a lead of {loss.gamma_beta_ratio:g} nats per"
                f" token, more than the paper tried ({HIGHEST_TRIED_GAMMA_BETA_RATIO:g}): pairs never stop pulling and"
                " the model degenerates."
            )
    elif loss.kind == "dpo" and loss.beta > HIGHEST_USEFUL_DPO_BETA:
        sentences.append(
            f"loss.beta {loss.beta:g} is on SimPO's scale; DPO sums over tokens and wants 0.01 to"
            f" {HIGHEST_USEFUL_DPO_BETA:g}."
        )
    if loss.kind == "simpo_hinge" and loss.label_smoothing > 0:
        sentences.append(f"loss.label_smoothing {loss.label_smoothing:g} does nothing: the hinge form has none.")
    if loss.sft_weight > 0:
        sentences.append(f"loss.sft_weight {loss.sft_weight:g} adds a likelihood term: this is no longer pure SimPO.")
    if training.epochs > MOST_USEFUL_EPOCHS:
        sentences.append(
            f"training.epochs {training.epochs:g}: SimPO is usually run for 1 epoch, {MOST_USEFUL_EPOCHS} at most; more"
            " over-fits small sets."
        )
    if training.pairs_per_step < FEWEST_PAIRS_PER_STEP:
        sentences.append(
            f"training.pairs_per_step {training.pairs_per_step}: with so few pairs a step is mostly noise; the paper"
            " uses 128; for small sets 8 to 32 are enough."
        )
    if training.warmup_ratio == 0 and training.scheduler != "constant":
        sentences.append("training.warmup_ratio 0: the first steps run at the full rate; 0.1 is usual.")
    return [*sentences, *contradictions(config, held_lora(config))]
