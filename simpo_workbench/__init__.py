"""SimPO Workbench: tune a model on preference pairs and see whether it got better or broke.

The public names are loaded on first use, so that importing the package loads neither torch nor pandas nor ipywidgets.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from ._version import __version__

if sys.platform == "win32":
    raise ImportError(
        "SimPO Workbench runs on Linux, WSL2 and (on the CPU) macOS, not on native Windows: install it inside WSL2."
    )

#: Public name -> the module that defines it.
_HOMES = {
    "WorkbenchError": "base.errors",
    "RunConfig": "config.run_config",
    "ModelConfig": "config.run_config",
    "DataConfig": "config.run_config",
    "LossConfig": "config.run_config",
    "LoraConfig": "config.run_config",
    "TrainingConfig": "config.run_config",
    "GenerationConfig": "config.run_config",
    "preset": "config.presets",
    "list_presets": "config.presets",
    "load_pairs": "pairs.pairs",
    "Pairs": "pairs.pairs",
    "Run": "runs.run",
    "attach": "runs.run",
    "list_runs": "runs.root",
    "find_run": "runs.root",
    "compare_scores": "analysis.scores",
    "scoring_noise": "analysis.scores",
    "lead_history": "analysis.leads",
    "loss_geometry": "analysis.geometry",
    "suggest_loss": "analysis.loss_suggestion",
    "token_leads": "analysis.microscope",
    "BlindVotes": "analysis.blind_votes",
    "win_rate": "analysis.vote_statistics",
    "diagnose": "analysis.doctor",
    "start": "runs.launch",
    "start_many": "runs.launch",
    "resume": "runs.launch",
    "clone": "runs.launch",
    "list_queue": "runs.device_queue",
    "open_model": "runs.remote",
    "write_report": "report.report",
    "start_preflight": "runs.remote_preflight",
    "Workbench": "ui.workbench",
    "ConfigForm": "ui.setup.config_form",
    "DataView": "ui.data.data_view",
    "RunMonitor": "ui.train.run_monitor",
    "Comparison": "ui.answers.comparison",
    "PairTable": "ui.pairs.pair_table",
    "RunList": "ui.runs.run_list",
    "LossGeometry": "ui.pairs.loss_geometry",
    "PairMicroscope": "ui.pairs.pair_microscope",
    "LeadHistory": "ui.pairs.lead_history",
    "BlindTest": "ui.answers.blind_test",
    "train": "engine.training",
    "steps": "engine.training",
    "preflight": "engine.preflight",
    "load_model": "engine.model.models",
    "score": "inference",
    "generate": "inference",
    "explain_pair": "inference",
    "encode_pair": "inference",
    "simpo_loss": "engine.losses",
    "make_tiny_model": "engine.model.tiny_model",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:  # so that editors and type checkers see the names that are loaded lazily
    from .analysis.blind_votes import BlindVotes
    from .analysis.doctor import diagnose
    from .analysis.geometry import loss_geometry
    from .analysis.leads import lead_history
    from .analysis.loss_suggestion import suggest_loss
    from .analysis.microscope import token_leads
    from .analysis.scores import compare_scores, scoring_noise
    from .analysis.vote_statistics import win_rate
    from .base.errors import WorkbenchError
    from .config.presets import list_presets, preset
    from .config.run_config import (
        DataConfig,
        GenerationConfig,
        LoraConfig,
        LossConfig,
        ModelConfig,
        RunConfig,
        TrainingConfig,
    )
    from .engine.losses import simpo_loss
    from .engine.model.models import load_model
    from .engine.model.tiny_model import make_tiny_model
    from .engine.preflight import preflight
    from .engine.training import steps, train
    from .inference import encode_pair, explain_pair, generate, score
    from .pairs.pairs import Pairs, load_pairs
    from .report.report import write_report
    from .runs.device_queue import list_queue
    from .runs.launch import clone, resume, start, start_many
    from .runs.remote import open_model
    from .runs.remote_preflight import start_preflight
    from .runs.root import find_run, list_runs
    from .runs.run import Run, attach
    from .ui.answers.blind_test import BlindTest
    from .ui.answers.comparison import Comparison
    from .ui.data.data_view import DataView
    from .ui.pairs.lead_history import LeadHistory
    from .ui.pairs.loss_geometry import LossGeometry
    from .ui.pairs.pair_microscope import PairMicroscope
    from .ui.pairs.pair_table import PairTable
    from .ui.runs.run_list import RunList
    from .ui.setup.config_form import ConfigForm
    from .ui.train.run_monitor import RunMonitor
    from .ui.workbench import Workbench


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
