"""DataFrames in, plotly figures out; pure functions."""

from typing import TYPE_CHECKING

from ..base.lazy import lazy_names

#: Public name -> the module that defines it.
_HOMES = {
    "training_figure": "training",
    "steps_figure": "training",
    "rewards_figure": "training",
    "score_histogram": "scores",
    "lead_scatter": "scores",
    "length_figure": "pairs",
    "curve_figure": "geometry",
    "leads_figure": "geometry",
    "lead_history_figure": "leads",
    "lead_histories_figure": "leads",
    "token_figure": "microscope",
    "won_figure": "microscope",
    "runs_figure": "runs",
}

__getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)

if TYPE_CHECKING:  # so that editors and type checkers see the names that are loaded lazily
    from .geometry import curve_figure, leads_figure
    from .leads import lead_histories_figure, lead_history_figure
    from .microscope import token_figure, won_figure
    from .pairs import length_figure
    from .runs import runs_figure
    from .scores import lead_scatter, score_histogram
    from .training import rewards_figure, steps_figure, training_figure
