"""The interface: panels that read run folders and ask models in other processes.

Each is a widget of its own; `wb.Workbench()` arranges them.
"""

from typing import TYPE_CHECKING

from ..base.lazy import lazy_names

#: Public name -> the module that defines it.
_HOMES = {
    "BlindTest": "answers.blind_test",
    "LossGeometry": "pairs.loss_geometry",
    "PairMicroscope": "pairs.pair_microscope",
    "LeadHistory": "pairs.lead_history",
    "PairsPanel": "pairs.pairs_panel",
}

__getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)

if TYPE_CHECKING:  # so that editors and type checkers see the names that are loaded lazily
    from .answers.blind_test import BlindTest
    from .pairs.lead_history import LeadHistory
    from .pairs.loss_geometry import LossGeometry
    from .pairs.pair_microscope import PairMicroscope
    from .pairs.pairs_panel import PairsPanel
