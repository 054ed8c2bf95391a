"""SimPO Workbench: tune a model on preference pairs and see whether it got better or broke.

The public names are loaded on first use, so that importing the package loads neither torch nor pandas nor ipywidgets.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if sys.platform == "win32":
    raise ImportError("SimPO Workbench runs on Linux, WSL2 and (on the CPU) macOS, not on native Windows: install it inside WSL2.")

__version__ = "0.1.0"

#: Public name -> the module that defines it.
_HOMES = {
    "WorkbenchError": "errors",
    "RunConfig": "config",
    "ModelConfig": "config",
    "DataConfig": "config",
    "LossConfig": "config",
    "LoraConfig": "config",
    "TrainingConfig": "config",
    "GenerationConfig": "config",
    "preset": "presets",
    "list_presets": "presets",
    "load_pairs": "pairs",
    "Pairs": "pairs",
    "Run": "runs",
    "attach": "runs",
    "list_runs": "runs",
    "find_run": "runs",
    "compare_scores": "scores",
    "scoring_noise": "scores",
    "lead_history": "history",
    "loss_geometry": "geometry",
    "suggest_loss": "loss_suggestion",
    "token_margins": "microscope",
    "BlindVotes": "blind_votes",
    "win_rate": "vote_statistics",
    "diagnose": "doctor",
    "start": "launch",
    "start_many": "launch",
    "resume": "launch",
    "clone": "launch",
    "queue": "device_queue",
    "open_model": "remote",
    "write_report": "report",
    "start_preflight": "remote",
    "Workbench": "ui.workbench",
    "ConfigForm": "ui.config_form",
    "DataView": "ui.data_view",
    "RunMonitor": "ui.run_monitor",
    "Comparison": "ui.comparison",
    "PairTable": "ui.pair_table",
    "RunList": "ui.run_list",
    "LossGeometry": "ui.loss_geometry",
    "PairMicroscope": "ui.pair_microscope",
    "TimeTravel": "ui.time_travel",
    "BlindTest": "ui.blind_test",
    "train": "engine.training",
    "steps": "engine.training",
    "preflight": "engine.preflight",
    "load_model": "engine.models",
    "score": "remote",
    "generate": "remote",
    "explain_pair": "remote",
    "encode_pair": "remote",
    "simpo_loss": "engine.losses",
    "make_tiny_model": "engine.tiny_model",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:  # so that editors and type checkers see the names that are loaded lazily
    from .blind_votes import BlindVotes
    from .config import DataConfig, GenerationConfig, LoraConfig, LossConfig, ModelConfig, RunConfig, TrainingConfig
    from .device_queue import queue
    from .doctor import diagnose
    from .engine.losses import simpo_loss
    from .engine.models import load_model
    from .engine.preflight import preflight
    from .engine.tiny_model import make_tiny_model
    from .engine.training import steps, train
    from .errors import WorkbenchError
    from .geometry import loss_geometry
    from .history import lead_history
    from .launch import clone, resume, start, start_many
    from .loss_suggestion import suggest_loss
    from .microscope import token_margins
    from .pairs import Pairs, load_pairs
    from .presets import list_presets, preset
    from .remote import encode_pair, explain_pair, generate, open_model, score, start_preflight
    from .report import write_report
    from .runs import Run, attach, find_run, list_runs
    from .scores import compare_scores, scoring_noise
    from .ui.blind_test import BlindTest
    from .ui.comparison import Comparison
    from .ui.config_form import ConfigForm
    from .ui.data_view import DataView
    from .ui.loss_geometry import LossGeometry
    from .ui.pair_microscope import PairMicroscope
    from .ui.pair_table import PairTable
    from .ui.run_list import RunList
    from .ui.run_monitor import RunMonitor
    from .ui.time_travel import TimeTravel
    from .ui.workbench import Workbench
    from .vote_statistics import win_rate


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})
