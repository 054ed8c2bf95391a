"""Measure a plain loop around Liger's fused SimPO loss on padded rows, wired as Liger's documentation shows.

For CUDA machines; see gpu.py. Started and read like contender.py.
"""

import json

from contender import plain_model, ready, result_of, run_task, same_start, warm_up_or_lap


def train_with_liger(contender, job: dict, folder) -> dict:
    """Measurements of a loop of a PEFT model, LigerFusedLinearSimPOLoss and AdamW over the same steps."""
    import torch
    from liger_kernel.chunked_loss import LigerFusedLinearSimPOLoss
    from peft import LoraConfig, get_peft_model

    from simpo_workbench import RunConfig

    config, work = RunConfig.from_dict(job["config"]), json.loads((folder / "work.json").read_text())
    device, lora = "cuda" if torch.cuda.is_available() else "cpu", config.lora
    base = plain_model(job, config.model.load_in, device)
    torch.manual_seed(config.training.seed)
    model = get_peft_model(
        base,
        LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.target_modules,
            task_type="CAUSAL_LM",
        ),
    )
    if contender.checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    start = same_start(model, folder, replace=True)
    # compute_nll_loss=False leaves out the likelihood term.
    loss_function = LigerFusedLinearSimPOLoss(
        beta=config.loss.beta, gamma=config.loss.gamma, compute_nll_loss=False, compiled=device == "cuda"
    )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adam = work["adam"]
    optimizer = torch.optim.AdamW(
        trained, lr=adam["lr"], betas=adam["betas"], eps=adam["eps"], weight_decay=adam["weight_decay"]
    )
    model.train()
    memory, watch = ready(model, device)
    losses = []
    for place, step in enumerate(work["steps"]):
        size = contender.micro_batch or len(step)
        parts = [step[first : first + size] for first in range(0, len(step), size)]
        total = 0.0
        for part in parts:
            ids, mask, labels = (tensor.to(device) for tensor in _padded(part))
            with torch.autocast(device, torch.bfloat16, enabled=job["dtype"] == "bf16"):
                hidden = base.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            loss, *_ = loss_function(base.get_output_embeddings().weight, hidden[:, :-1].to(base.dtype), labels[:, 1:])
            (loss / len(parts)).backward()
            total += float(loss.detach()) / len(parts)
        torch.nn.utils.clip_grad_norm_(trained, config.training.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
        warm_up_or_lap(watch, place)
    return result_of(memory, watch, losses, float(contender.checkpointing)) | {"initial_adapter": start}


def _padded(pairs):
    """(ids, mask, labels), each (2 · pairs, longest), chosen rows first; labels are −100 on prompt and padding."""
    import torch

    rows = [(pair["prompt_ids"], pair[f"{side}_ids"]) for side in ("chosen", "rejected") for pair in pairs]
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids, mask, labels = (torch.full((len(rows), width), value) for value in (0, 0, -100))
    for place, (prompt, answer) in enumerate(rows):
        length = len(prompt) + len(answer)
        ids[place, :length] = torch.tensor(prompt + answer)
        mask[place, :length] = 1
        labels[place, len(prompt) : length] = torch.tensor(answer)
    return ids, mask, labels


if __name__ == "__main__":
    run_task(train_with_liger)
