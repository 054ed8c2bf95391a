"""Measure the optimizer steps of one contender, the workbench or TRL's CPOTrainer, in a process of its own.

vs_trl.py starts it as `python benchmarks/contender.py FOLDER`. It reads task.json in that folder and writes
result.json: times, peak memory, losses. The first process of the workbench also writes what all later processes must
share: work.json (token ids in the order of the steps, optimizer settings, the model's shape) and
initial_adapter.safetensors. liger_contender.py is the same for Liger's loss and uses the functions here.
"""

import argparse
import importlib.metadata
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import measure

from simpo_workbench import RunConfig

PACKAGES = ("torch", "transformers", "peft", "accelerate", "trl", "liger-kernel", "bitsandbytes", "simpo-workbench")


@dataclass(frozen=True)
class Contender:
    """One way of doing the work.

    loss: loss.kind of the workbench. micro_batch: pairs that a peer sends through the model at once; None means all
    pairs of a step.
    """

    name: str
    trl: bool = False
    liger: bool = False
    loss: str = "simpo"
    micro_batch: int | None = None
    checkpointing: bool = False


def run_task(train):
    """Write result.json for the task in the folder that the command line names.

    train(contender, job, folder) returns the measurements: one warm-up step, then every step of the work.
    """
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    task = json.loads((folder / "task.json").read_text())
    contender, job = Contender(**task["contender"]), task["job"]
    torch.set_num_threads(job["threads"])
    result = train(contender, job, folder)
    measure.write_json(folder / "result.json", result | {"versions": {name: version(name) for name in PACKAGES}})


def train(contender: Contender, job: dict, folder: Path) -> dict:
    """Measurements of the contender's steps."""
    return (train_with_trl if contender.trl else train_here)(contender, job, folder)


def train_here(contender: Contender, job: dict, folder: Path) -> dict:
    """Measurements of the workbench's own optimizer steps."""
    from simpo_workbench.engine.setup import prepare
    from simpo_workbench.engine.training import optimizer_step

    setup = prepare(RunConfig.from_dict(job["config"]).with_changes({"loss.kind": contender.loss}))
    model, device = setup.loaded.model, setup.loaded.device.type
    # The warm-up step is the one after the last: it begins a second pass over the pairs.
    numbers = [job["steps"] + 1, *range(1, job["steps"] + 1)]
    order = [setup.step_pairs(number) for number in numbers]
    if sorted(pair.pair_id for step in order[1:] for pair in step) != sorted(pair.pair_id for pair in setup.train):
        raise SystemExit("The timed steps are not one pass over the pairs.")
    start = same_start(model, folder, replace=False)
    if not (folder / "work.json").exists():
        _write_work(folder, order, setup.optimizer.param_groups[0], model)
    memory, watch = ready(model, device)
    losses = []
    for place, number in enumerate(numbers):
        losses.append(optimizer_step(setup, number).record["loss"])
        warm_up_or_lap(watch, place)
    checkpointed = setup.environment.get("checkpointed_layers", 0) / model.config.get_text_config().num_hidden_layers
    result = result_of(memory, watch, losses, checkpointed) | {"initial_adapter": start}
    setup.close()
    return result


def train_with_trl(contender: Contender, job: dict, folder: Path) -> dict:
    """Measurements of TRL's trainer.

    Its rows are tokenized beforehand; collating, forward, loss, backward and optimizer are TRL's own.
    """
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl.experimental.cpo import CPOTrainer

    losses = []

    class Trainer(CPOTrainer):
        @staticmethod
        def tokenize_row(row):
            return {}  # the columns already hold token ids

        def compute_loss(self, *arguments, **options):
            loss = super().compute_loss(*arguments, **options)
            losses.append(loss.detach())
            return loss

    class Laps(TrainerCallback):
        def on_step_end(self, arguments, state, control, **_):
            warm_up_or_lap(watch, state.global_step - 1)

    config, work = RunConfig.from_dict(job["config"]), json.loads((folder / "work.json").read_text())
    device, lora = "cuda" if torch.cuda.is_available() else "cpu", config.lora
    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    if tokenizer.pad_token is None:  # the trainer sets one, but only after its collator has read it
        tokenizer.pad_token = tokenizer.eos_token
    trainer = Trainer(
        model=plain_model(job, config.model.load_in, device),
        args=_trl_settings(contender, job, config, work, device, folder),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([_trl_row(pair) for step in work["steps"] for pair in step]),
        callbacks=[Laps()],
        peft_config=LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.target_modules,
            task_type="CAUSAL_LM",
        ),
    )
    start = same_start(trainer.model, folder, replace=True)
    memory, watch = ready(trainer.model, device)
    trainer.train()
    # Micro-batches have equal size, so their mean is the step's loss.
    by_step = torch.stack(losses).float().reshape(len(work["steps"]), -1)
    return result_of(memory, watch, by_step.mean(1).tolist(), float(contender.checkpointing)) | {
        "initial_adapter": start
    }


def _trl_settings(contender, job, config, work, device, folder):
    """CPOConfig for the same steps; cpo_alpha=0 leaves out CPO's likelihood term, and simpo_gamma is γ itself."""
    from trl.experimental.cpo import CPOConfig

    micro_batch = contender.micro_batch or job["pairs_per_step"]
    adam = work["adam"]
    return CPOConfig(
        output_dir=str(folder / "trl"),
        loss_type="simpo",
        cpo_alpha=0.0,
        beta=config.loss.beta,
        simpo_gamma=config.loss.gamma,
        max_length=config.data.max_tokens,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=job["pairs_per_step"] // micro_batch,
        gradient_checkpointing=contender.checkpointing,
        max_steps=len(work["steps"]),
        learning_rate=adam["lr"],
        adam_beta1=adam["betas"][0],
        adam_beta2=adam["betas"][1],
        adam_epsilon=adam["eps"],
        weight_decay=adam["weight_decay"],
        max_grad_norm=config.training.max_grad_norm,
        lr_scheduler_type="constant",
        warmup_steps=0,
        seed=config.training.seed,
        train_sampling_strategy="sequential",  # the rows are in the order of the workbench's steps
        bf16=job["dtype"] == "bf16",  # TRL's default is autocast to bf16, even for an fp32 model on a CPU
        use_cpu=device == "cpu",
        dataloader_pin_memory=device == "cuda",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )


def plain_model(job, load_in, device):
    """The base model as a user of TRL loads it, in the workbench's precision."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = getattr(torch, measure.DTYPES[job["dtype"]])
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    quantized = nf4 if load_in == "nf4" else None
    return AutoModelForCausalLM.from_pretrained(
        job["base"], dtype=dtype, attn_implementation="sdpa", quantization_config=quantized, device_map={"": device}
    )


def _trl_row(pair):
    """One row for CPOTrainer's collator: whole sequences, labels with -100 on the prompt, empty texts."""
    prompt = pair["prompt_ids"]
    row = {
        "prompt": "",
        "chosen": "",
        "rejected": "",
        "prompt_input_ids": prompt,
        "prompt_attention_mask": [1] * len(prompt),
    }
    for side in ("chosen", "rejected"):
        answer = pair[f"{side}_ids"]
        row[f"{side}_input_ids"] = prompt + answer
        row[f"{side}_attention_mask"] = [1] * len(prompt + answer)
        row[f"{side}_labels"] = [-100] * len(prompt) + answer
    return row


def _write_work(folder, order, parameter_group, model):
    ids = ("pair_id", "prompt_ids", "chosen_ids", "rejected_ids")
    work = {
        "steps": [[{name: getattr(pair, name) for name in ids} for pair in step] for step in order],
        "adam": {name: parameter_group[name] for name in ("lr", "betas", "eps", "weight_decay")},
        "shape": asdict(measure.ModelShape.of(model)),
    }
    measure.write_json(folder / "work.json", work)


def same_start(model, folder, replace):
    """Give the model the first process's initial adapter; returns "first", "equal by seed" or "replaced".

    Errors: SystemExit when the adapters have different layers, or differ while `replace` is false.
    """
    import torch
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file, save_file

    path = folder / "initial_adapter.safetensors"
    mine = {
        name: tensor.detach().float().cpu().contiguous()
        for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    if not path.exists():
        save_file(mine, path)
        return "first"
    first = load_file(path)
    if mine.keys() != first.keys():
        raise SystemExit("The two contenders' adapters are on different layers.")
    if all(torch.equal(mine[name], first[name]) for name in first):
        return "equal by seed"
    if not replace:
        raise SystemExit("The workbench started from a different adapter than in its first run.")
    set_peft_model_state_dict(model, first)
    return "replaced"


def ready(model, device):
    """(PeakMemory, Stopwatch), with memory measured from now on.

    Every weight is read first: a weight file that is only mapped would count as memory of the first step.
    """
    for parameter in model.parameters():
        parameter.data.sum()
    memory = measure.PeakMemory(device)
    memory.start()
    return memory, measure.Stopwatch(device)


def warm_up_or_lap(watch, place):
    """Start the clock after the warm-up step (place 0), otherwise record a lap."""
    if place == 0:
        watch.start()
    else:
        watch.lap()


def result_of(memory, watch, losses, checkpointed_share):
    """Measurements as plain values; losses[0] is the warm-up step's. Errors: SystemExit when a loss is not finite."""
    if not all(map(math.isfinite, losses)):
        raise SystemExit(f"The losses are not finite: {losses}")
    return watch.totals() | {
        "losses": losses,
        "loaded_bytes": memory.loaded_bytes,
        "peak_bytes": memory.peak_bytes(),
        "memory_method": memory.method,
        "checkpointed_share": checkpointed_share,
    }


def version(package: str) -> str | None:
    """Version of an installed package, else None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    run_task(train)
