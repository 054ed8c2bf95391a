"""The settings that may change while a run trains, and their bounds."""

from __future__ import annotations

from ..base.errors import WorkbenchError
from ..base.redaction import holds_secret
from .run_config import RunConfig

CHANGEABLE = ("learning_rate_scale", "beta", "gamma_beta_ratio", "gamma", "prompts")
LARGEST_SCALE = 100.0


def with_rate_as_scale(config: RunConfig, changes: dict) -> dict:
    """The changes with a learning_rate, where there is one, as the learning_rate_scale that it comes to.

    Errors: WorkbenchError where both are given, or it is no number.
    """
    if "learning_rate" not in changes:
        return changes
    rate = changes["learning_rate"]
    if "learning_rate_scale" in changes:
        raise WorkbenchError("Give learning_rate or learning_rate_scale, not both: they are two ways to say one thing.")
    if isinstance(rate, bool) or not isinstance(rate, (int, float)):
        raise WorkbenchError(f"learning_rate = {rate!r} is not possible: expected a number.")
    scale = rate / config.training.learning_rate
    if not 0 <= scale <= LARGEST_SCALE:
        raise WorkbenchError(
            f"learning_rate = {rate:g} is not possible: expected 0 to {LARGEST_SCALE:g} times the configured"
            f" {config.training.learning_rate:g}."
        )
    return {**{name: value for name, value in changes.items() if name != "learning_rate"}, "learning_rate_scale": scale}


def checked_changes(config: RunConfig, changes: dict) -> RunConfig:
    """The configuration with these changes. Errors: WorkbenchError when one is unknown or its value is not possible."""
    if not changes:
        raise WorkbenchError(f"Say what to change: {', '.join(CHANGEABLE)}.")
    unknown = [str(name)[:80] for name in changes if name not in CHANGEABLE]
    if unknown:
        raise WorkbenchError(f"{unknown[0]!r} cannot be changed while a run trains: {', '.join(CHANGEABLE)} can.")
    for name in ("beta", "gamma_beta_ratio", "gamma"):
        if name in changes and (isinstance(changes[name], bool) or not isinstance(changes[name], (int, float))):
            raise WorkbenchError(f"{name} = {changes[name]!r} is not possible: expected a number.")
    prompts = changes.get("prompts", [])
    if not isinstance(prompts, list) or not all(
        isinstance(prompt, dict) or (isinstance(prompt, str) and prompt.strip()) for prompt in prompts
    ):
        raise WorkbenchError(
            f"prompts = {str(prompts)[:80]!r} is not possible: expected a list of texts (generation.prompts)."
        )
    if holds_secret(changes):
        raise WorkbenchError("prompts holds a token, key or password. A run folder is made to be shared: leave it out.")
    scale = changes.get("learning_rate_scale", 1.0)
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 <= scale <= LARGEST_SCALE:
        raise WorkbenchError(
            f"learning_rate_scale = {scale!r} is not possible: expected a number from 0 to {LARGEST_SCALE:g}; 1 is the"
            " configured rate."
        )
    settings = {f"loss.{name}": changes[name] for name in ("beta", "gamma_beta_ratio", "gamma") if name in changes}
    if "prompts" in changes:
        settings["generation.prompts"] = changes["prompts"]
    return config.with_changes(settings)
