"""SimPO Workbench: tune a model on preference pairs and see whether it got better or broke.

The public names are loaded on first use, so that importing the package loads neither torch nor pandas nor ipywidgets.
"""

import sys
from typing import TYPE_CHECKING

from ._version import __version__
from .base.lazy import lazy_names

if sys.platform == "win32":
    raise ImportError(
        "SimPO Workbench runs on Linux, WSL2 and (on the CPU) macOS, not on native Windows: install it inside WSL2."
    )

#: Public name -> the module that defines it; "" for the rooms whose own public names follow behind a dot.
_HOMES = {
    "WorkbenchError": "base.errors",
    "RunConfig": "config.run_config",
    "ModelConfig": "config.run_config",
    "DataConfig": "config.data_config",
    "LossConfig": "config.run_config",
    "GenerationConfig": "config.run_config",
    "preset": "config.presets",
    "list_presets": "config.presets",
    "load_pairs": "pairs.pairs",
    "Pairs": "pairs.pairs",
    "train": "engine.training",
    "steps": "engine.training",
    "preflight": "engine.preflight",
    "simpo_loss": "engine.losses",
    "load_model": "engine.model.models",
    "make_tiny_model": "engine.model.tiny_model",
    "score": "inference",
    "generate": "inference",
    "explain_pair": "inference",
    "encode_pair": "inference",
    "open_model": "runs.remote",
    "start": "runs.launch",
    "resume": "runs.launch",
    "clone": "runs.launch",
    "Run": "runs.run",
    "attach": "runs.run",
    "find_run": "runs.root",
    "list_runs": "runs.root",
    "verify": "runs.verify",
    "compare_scores": "analysis.scores",
    "win_rate": "analysis.vote_statistics",
    "write_report": "report.report",
    "Workbench": "ui.workbench",
    "ConfigForm": "ui.setup.config_form",
    "DataView": "ui.data.data_view",
    "RunMonitor": "ui.train.run_monitor",
    "Comparison": "ui.answers.comparison",
    "PairTable": "ui.pairs.pair_table",
    "RunList": "ui.runs.run_list",
    "analysis": "",
    "charts": "",
    "runs": "",
    "ui": "",
}

__getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)

if TYPE_CHECKING:  # so that editors and type checkers see the names that are loaded lazily
    from . import analysis, charts, runs, ui
    from .analysis.scores import compare_scores
    from .analysis.vote_statistics import win_rate
    from .base.errors import WorkbenchError
    from .config.data_config import DataConfig
    from .config.presets import list_presets, preset
    from .config.run_config import GenerationConfig, LossConfig, ModelConfig, RunConfig
    from .engine.losses import simpo_loss
    from .engine.model.models import load_model
    from .engine.model.tiny_model import make_tiny_model
    from .engine.preflight import preflight
    from .engine.training import steps, train
    from .inference import encode_pair, explain_pair, generate, score
    from .pairs.pairs import Pairs, load_pairs
    from .report.report import write_report
    from .runs.launch import clone, resume, start
    from .runs.remote import open_model
    from .runs.root import find_run, list_runs
    from .runs.run import Run, attach
    from .runs.verify import verify
    from .ui.answers.comparison import Comparison
    from .ui.data.data_view import DataView
    from .ui.pairs.pair_table import PairTable
    from .ui.runs.run_list import RunList
    from .ui.setup.config_form import ConfigForm
    from .ui.train.run_monitor import RunMonitor
    from .ui.workbench import Workbench
