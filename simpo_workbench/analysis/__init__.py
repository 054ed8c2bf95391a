"""DataFrames in, DataFrames and sentences out: metrics, scores, verdicts, loss geometry, leads, votes, differences of
texts.
"""

from typing import TYPE_CHECKING

from ..base.lazy import lazy_names

#: Public name -> the module that defines it.
_HOMES = {
    "METRICS": "metrics",
    "diagnose": "doctor",
    "scoring_noise": "scores",
    "share": "scores",
    "share_of": "scores",
    "change_of_share": "scores",
    "loss_geometry": "geometry",
    "suggest_loss": "loss_suggestion",
    "lead_history": "leads",
    "token_leads": "microscope",
    "BlindVotes": "blind_votes",
    "sampled_answers": "blind_items",
}

__getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)

if TYPE_CHECKING:  # so that editors and type checkers see the names that are loaded lazily
    from .blind_items import sampled_answers
    from .blind_votes import BlindVotes
    from .doctor import diagnose
    from .geometry import loss_geometry
    from .leads import lead_history
    from .loss_suggestion import suggest_loss
    from .metrics import METRICS
    from .microscope import token_leads
    from .scores import change_of_share, scoring_noise, share, share_of
