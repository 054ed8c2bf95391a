"""Everything a training run needs, built from its configuration: model, encoded pairs, optimizer, memory plan."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import platform
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from ..base.errors import WorkbenchError, first_line
from ..base.format import counted
from ..config.checks import Check
from ..config.earlier import config_hash
from ..config.held_lora import adapter_note, contradictions, lora_of_adapter
from ..config.live_changes import checked_changes
from ..config.run_config import GenerationConfig, RunConfig
from ..config.schedule import total_steps
from ..pairs.data_sets import DataSets, load_data
from ..pairs.pairs import Pairs
from ..pairs.secrets_in_pairs import secrets_note
from ..runs.verified import FROZEN
from . import limits
from .encode.encoded_pairs import EncodedPairs, encode_once
from .encode.tokens import ChatEncoder, EncodedPair, EncodingReport
from .forward import memory
from .forward.attention import row_policy
from .forward.logprobs import PackedScorer
from .forward.memory import MemoryPlan
from .forward.packing import RowPolicy
from .identity import identity_of
from .model import models
from .sample_prompts import SamplePrompt, given_prompt, held_out_checks, held_out_prompt

#: Memory is measured on the longest pair up to this many tokens; it grows in proportion to them.
_MEASURED_TOKENS = 1024
_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "datasets", "tokenizers", "simpo-workbench")


@dataclass(frozen=True)
class Settings:
    """Settings that may change between two steps: the current configuration, and a factor on its learning rate."""

    config: RunConfig
    learning_rate_scale: float = 1.0

    def changed(self, changes: dict) -> "Settings":
        """These settings with changes. Raises WorkbenchError as `checked_changes` does."""
        config = checked_changes(self.config, changes)
        return Settings(config, float(changes.get("learning_rate_scale", self.learning_rate_scale)))


@dataclass
class Setup:
    """Everything the loop works on. config: as the run was started; see Settings for what changes.

    `scorer` is what Accelerate prepared; `loaded.model` is the same model, unwrapped.
    held_out: the pairs of evaluations, on which a step is chosen. final: those that are scored for the chosen step
    alone; none where there is no final share. identity: what the run trains on, by content, for its manifest.
    held_out_checks: by id of the held-out pairs that have one.
    applied_updates: optimizer steps so far, without those that fp16 loss scaling skipped.
    """

    config: RunConfig
    accelerator: Accelerator
    loaded: models.LoadedModel
    encoder: ChatEncoder
    scorer: torch.nn.Module
    optimizer: torch.optim.Optimizer
    train: EncodedPairs
    held_out: EncodedPairs
    held_out_pairs: Pairs
    final: EncodedPairs
    final_pairs: Pairs
    train_report: EncodingReport
    held_out_report: EncodingReport
    final_report: EncodingReport
    total_steps: int
    environment: dict
    identity: dict
    resources: contextlib.ExitStack
    policy: RowPolicy
    memory: MemoryPlan
    held_out_checks: dict[str, Check]
    applied_updates: int = 0

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """The trained parameters."""
        return [parameter for parameter in self.loaded.model.parameters() if parameter.requires_grad]

    def step_pairs(self, step: int) -> list[EncodedPair]:
        """The `pairs_per_step` pairs of one optimizer step (counted from 1), a function of seed and step alone."""
        size, seed, count = self.config.training.pairs_per_step, self.config.training.seed, len(self.train)
        positions = range((step - 1) * size, step * size)
        return [self.train[int(_shuffled(count, seed, place // count)[place % count])] for place in positions]

    @functools.cached_property
    def held_out_prompts(self) -> dict[str, str]:
        """The prompt of each held-out pair, by the pair's id."""
        return {pair.pair_id: pair.prompt_text for pair in self.held_out_pairs}

    def sample_prompts(self, generation: GenerationConfig) -> list[SamplePrompt]:
        """The prompts that are answered at an evaluation: the given ones, then held-out ones spread evenly over the
        set.
        """
        held_out = self.held_out, self.held_out_pairs, self.held_out_checks
        return _sample_prompts(generation, self.config.data, *held_out)

    def require_room_for_answers(self, generation: GenerationConfig) -> None:
        """Raise WorkbenchError unless the sample prompts and their answers fit the model's positions."""
        _require_room_for_answers(self.loaded, self.encoder, self.sample_prompts(generation), generation)

    def close(self) -> None:
        """Free the memory and reset Accelerate's state, so that the next run in this process may choose another
        precision.
        """
        self.resources.close()
        self.optimizer = self.scorer = None
        self.loaded.close()
        self.accelerator.free_memory()
        AcceleratorState._reset_state(reset_partial_state=True)


def prepare(
    config: RunConfig,
    memory_plan: MemoryPlan | None = None,
    doing: Callable[[str], None] = lambda words: None,
    kept: dict | None = None,
) -> Setup:
    """A Setup for a configuration. memory_plan: that of a run which is resumed; otherwise one is made, from a measured
    step where settings are "auto". doing: called with words for what takes a while, before it begins. kept: what a
    resumed run has kept of its chat template.

    Errors: WorkbenchError for pairs or models that cannot be used.
    """
    torch.manual_seed(config.training.seed)
    doing("reading the pairs")
    data = load_data(config.data, config.training.seed)
    doing("loading the model")
    loaded = models.load_base(config.model, config.data)
    try:
        return _prepare(config, loaded, data, memory_plan, doing, kept)
    except BaseException:
        loaded.close()
        raise


def _prepare(config, loaded, data: DataSets, memory_plan, doing, kept):
    training = config.training
    doing("encoding the pairs")
    encoder = ChatEncoder.of(loaded, config.data, kept)
    sides = {"training": data.train, "held-out": data.held_out, "final": data.final}
    encoded = {side: encode_once(encoder, pairs) for side, pairs in sides.items()}
    for side, (ids, report) in encoded.items():
        if not ids and (sides[side] or side != "final"):
            raise WorkbenchError(f"No {side} pair is left after tokenizing. {report}")
        limits.require_fitting_pairs(loaded, ids, side)
    (train, train_report), (held_out, held_out_report), (final, final_report) = encoded.values()
    checks, check_notes = held_out_checks(data.held_out)
    prompts = _sample_prompts(config.generation, config.data, held_out, data.held_out, checks)
    _require_room_for_answers(loaded, encoder, prompts, config.generation)
    models.add_lora(loaded, config.lora, training.seed)
    accelerator = _accelerator(loaded)
    parameters = [parameter for parameter in loaded.model.parameters() if parameter.requires_grad]
    optimizer = _optimizer(training, parameters)
    scorer, optimizer = accelerator.prepare(PackedScorer(loaded.model), optimizer)
    resources = contextlib.ExitStack()
    resources.enter_context(models.weights_unpacked(loaded))
    policy = row_policy(loaded.model)
    secrets = filter(None, [secrets_note(pairs, side) for side, pairs in sides.items()])
    lora = _lora(config, loaded)
    of_adapter = filter(None, [adapter_note(config, lora), *contradictions(config, lora)])
    notes = [*loaded.notes, *of_adapter, *data.notes, *secrets, *check_notes, *_row_notes(policy, train)]
    if memory_plan is None:
        doing("measuring the memory that a step takes")
        memory_plan = _memory_plan(training, accelerator, loaded, train, policy)
    memory.checkpoint_layers(loaded.model, memory_plan.checkpointed_layers)
    memory.reset_peak_memory(loaded.device)  # the records' peak is that of training, not of loading
    steps = total_steps(config, len(train))
    reports = [f"{side.capitalize()} pairs: {report}" for side, (_, report) in encoded.items() if sides[side]]
    frozen = encoder.template.to_keep()
    environment = _environment(config, loaded, lora, policy, memory_plan, data, frozen, [*notes, *reports])
    return Setup(
        config=config,
        accelerator=accelerator,
        loaded=loaded,
        encoder=encoder,
        scorer=scorer,
        optimizer=optimizer,
        train=train,
        held_out=held_out,
        held_out_pairs=data.held_out,
        final=final,
        final_pairs=data.final,
        train_report=train_report,
        held_out_report=held_out_report,
        final_report=final_report,
        total_steps=steps,
        environment=environment,
        identity=identity_of(config, loaded, train, held_out, final, environment, steps),
        resources=resources,
        policy=policy,
        memory=memory_plan,
        held_out_checks=checks,
    )


def _lora(config, loaded):
    """The settings of the adapter that is trained: with model.adapter that adapter's own, as PEFT has read them."""
    if not config.model.adapter:
        return config.lora.model_dump()
    return lora_of_adapter(loaded.model.peft_config[models.TUNED].to_dict())


def _sample_prompts(generation, data, held_out, held_out_pairs, checks):
    """As `Setup.sample_prompts`."""
    encoded = set(held_out.pair_ids)
    by_text = {pair.prompt_text: held_out_prompt(pair, checks) for pair in held_out_pairs if pair.pair_id in encoded}
    candidates = list(by_text.values())
    count = min(generation.held_out_prompts, len(candidates))
    spread = [candidates[index * len(candidates) // count] for index in range(count)]
    return [*(given_prompt(prompt, data.framed_prompts) for prompt in generation.prompts), *spread]


def _require_room_for_answers(loaded, encoder, prompts, generation):
    prompt_ids = [encoder.prompt_ids(prompt.messages, prompt.tools) for prompt in prompts]
    limits.require_room_for_answers(loaded, prompt_ids, generation.max_new_tokens)


def _row_notes(policy, train):
    """Sentences on how pairs go through this model, where that is not as usual."""
    if policy.reason:
        yield f"Each answer goes through the model with a prompt of its own: {policy.reason}."
    alone = int((policy.count(train.lengths) > train.lengths.sum(axis=1)).sum())
    if policy.shared and alone:
        yield (
            f"{counted(alone, 'training pair')} {'is' if alone == 1 else 'are'} longer than {policy.longest} tokens,"
            " where this model changes its rotary factors: each goes through alone."
        )


def _memory_plan(training, accelerator, loaded, train, policy):
    """The plan for this machine now; all processes of a run take the smallest of theirs."""
    tokens = policy.count(train.lengths)
    # the longest pair up to a limit, or the shortest one
    measured = train[int(np.where(tokens <= _MEASURED_TOKENS, tokens, -tokens).argmax())]
    measure = memory.bytes_per_token_of(
        PackedScorer(loaded.model), loaded.model, measured, policy, loaded.device, accelerator.autocast
    )
    layers, free = len(memory.layers_of(loaded.model)), memory.free_memory(loaded.device)
    chosen = memory.choose(training, measure, layers, int(tokens.max()), free, loaded.device.type)
    if torch.distributed.is_initialized():
        smallest = torch.tensor([chosen.max_tokens_per_microbatch, -chosen.checkpointed_layers], device=loaded.device)
        torch.distributed.all_reduce(smallest, torch.distributed.ReduceOp.MIN)
        chosen = MemoryPlan(int(smallest[0]), -int(smallest[1]))
    return chosen


def _accelerator(loaded):
    mixed_precision = "fp16" if loaded.compute_dtype == torch.float16 and loaded.device.type == "cuda" else "no"
    try:
        return Accelerator(mixed_precision=mixed_precision, cpu=loaded.device.type == "cpu")
    except ValueError as error:
        raise WorkbenchError(
            "Accelerate is in use in this process with other settings: use wb.start, or restart the kernel."
            f" ({first_line(error)})"
        ) from None


def _optimizer(training, parameters):
    if training.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=training.weight_decay, fused=True)
    from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

    kind = PagedAdamW8bit if training.optimizer == "paged_adamw_8bit" else AdamW8bit
    return kind(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)


@functools.lru_cache(maxsize=2)
def _shuffled(count, seed, epoch):
    """The order of `count` pairs in one epoch, (count,) int64."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator)


def _environment(config, loaded, lora, policy, memory_plan, data, frozen, notes):
    device, targets = loaded.device, loaded.model.peft_config[models.TUNED].target_modules
    device_name = f"CPU, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        device_name = torch.cuda.get_device_name(device)
    trained = [parameter for parameter in loaded.model.parameters() if parameter.requires_grad]
    return {
        "versions": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device_name,
        "compute_dtype": str(loaded.compute_dtype).removeprefix("torch."),
        "seed": config.training.seed,
        "config_sha256": config_hash(config),
        "train_pairs_sha256": data.train.content_hash,
        "held_out_pairs_sha256": data.held_out.content_hash,
        "final_pairs_sha256": data.final.content_hash,
        "final_share": data.final_note,
        "shared_prompts": policy.shared,
        "prompts_not_shared_because": policy.reason,
        "longest_packed_sequence": policy.longest,
        "proof": dataclasses.asdict(loaded.model.proof),
        "max_tokens_per_microbatch": memory_plan.max_tokens_per_microbatch,
        "checkpointed_layers": memory_plan.checkpointed_layers,
        # an adapter from elsewhere may name them by a pattern
        "adapted_layers": targets if isinstance(targets, str) else sorted(targets),
        "lora": lora,
        "trained_parameters": sum(parameter.numel() for parameter in trained),
        FROZEN: frozen,
        "data_notes": notes,
    }


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
