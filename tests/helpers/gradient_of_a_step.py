"""Run by tests/full/engine/test_step.py, alone or under torchrun: gradients of one optimizer step, written by the first
process.

python gradient_of_a_step.py OUT '[{"folder": …, "pairs_file": …, "dtype": …, "pairs_per_step": …, "budgets": […]}, …]'
"""

import faulthandler
import json
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

#: Kept until the end: freeing DDP after its process group waits forever, now and then.
KEPT = []


def gradients(folder, pairs_file, dtype, pairs_per_step, budgets):
    """{budget: gradient, "<budget> pairs": pairs of this process, "world_size": processes} of one case."""
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
    encoder = ChatEncoder(loaded.tokenizer, config.data)
    pairs = encoder.encode_pairs(list(wb.load_pairs(pairs_file)))[0][:pairs_per_step]
    results = {"world_size": accelerator.num_processes}
    for budget in budgets:
        prepared = SimpleNamespace(
            accelerator=accelerator,
            loaded=loaded,
            scorer=scorer,
            policy=row_policy(loaded.model),
            memory=MemoryPlan(int(budget), 0),
        )
        pair_ids, _ = step.accumulate_gradients(prepared, pairs, 1, config.loss)
        results[budget] = torch.cat([parameter.grad.flatten() for parameter in parameters])
        results[f"{budget} pairs"] = len(pair_ids)
        for parameter in parameters:
            parameter.grad = None
    KEPT.append((accelerator, scorer))
    return results


def main(out, cases):
    results = [gradients(**case) for case in json.loads(cases)]
    accelerator, _ = KEPT[0]
    if accelerator.is_main_process:
        torch.save(results, out)
    if accelerator.num_processes > 1:
        accelerator.wait_for_everyone()
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    # Processes that wait for each other say where, instead of waiting forever.
    faulthandler.dump_traceback_later(200, exit=True)
    main(*sys.argv[1:])
