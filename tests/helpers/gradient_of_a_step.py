"""Run by test_step.py, alone or under torchrun: the gradient of one optimizer step for several budgets, written by the
first process.

python gradient_of_a_step.py OUT MODEL_FOLDER PAIRS_FILE DTYPE PAIRS_PER_STEP BUDGET…
"""

import faulthandler
import os
import sys
from types import SimpleNamespace

import torch

import simpo_workbench as wb
from simpo_workbench.engine import setup, step
from simpo_workbench.engine.encode.tokens import ChatEncoder
from simpo_workbench.engine.forward.attention import row_policy
from simpo_workbench.engine.forward.logprobs import PackedScorer
from simpo_workbench.engine.forward.memory import MemoryPlan
from simpo_workbench.engine.model import models


def main(out, folder, pairs_file, dtype, pairs_per_step, *budgets):
    config = wb.RunConfig.from_dict({"model": {"name": folder, "load_in": "fp32"}, "lora": {"dropout": 0.0}})
    loaded = models.load_base(config.model)
    models.add_lora(loaded, config.lora, seed=0)
    torch.manual_seed(5)
    for name, parameter in loaded.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)  # at the start it is zero, and half of the gradient with it
    loaded.model.to(getattr(torch, dtype))
    accelerator = setup._accelerator(loaded)
    parameters = [parameter for parameter in loaded.model.parameters() if parameter.requires_grad]
    scorer = accelerator.prepare(PackedScorer(loaded.model))
    pairs = ChatEncoder(loaded.tokenizer, config.data).encode_pairs(list(wb.load_pairs(pairs_file)))[0][
        : int(pairs_per_step)
    ]
    found = {"world_size": accelerator.num_processes}
    for budget in budgets:
        made = SimpleNamespace(
            accelerator=accelerator,
            loaded=loaded,
            scorer=scorer,
            policy=row_policy(loaded.model),
            memory=MemoryPlan(int(budget), 0),
        )
        pair_ids, _ = step.accumulate_gradients(made, pairs, 1, config.loss)
        found[budget] = torch.cat([parameter.grad.flatten() for parameter in parameters])
        found[f"{budget} pairs"] = len(pair_ids)
        for parameter in parameters:
            parameter.grad = None
    if accelerator.is_main_process:
        torch.save(found, out)
    if accelerator.num_processes > 1:
        accelerator.wait_for_everyone()
        sys.stdout.flush()
        os._exit(0)  # freeing DDP after its process group has waited for ever, now and then


if __name__ == "__main__":
    faulthandler.dump_traceback_later(
        200, exit=True
    )  # processes that wait for each other say where, instead of waiting for ever
    main(*sys.argv[1:])
