"""What a chat template is given beside messages and options, and what a run keeps so that it stays the same."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ...base.files import read_json
from ...runs.folder import RunFolder
from ...runs.verified import FROZEN, read_kept


@dataclass(frozen=True)
class TemplateValues:
    """What decides a rendering beside the data: kept with a run, so that scoring and sampling write the same texts.

    now: the moment that templates take for today (`strftime_now`); None is the real one.
    thinking: whether sampled answers think where the template leaves it open; None where no pair has decided it.
    end_ids: the end tokens of the model's generation configuration.
    """

    now: datetime | None = None
    thinking: bool | None = None
    end_ids: frozenset[int] = frozenset()

    def to_json(self) -> dict:
        """As a run keeps it under FROZEN."""
        return {"template_time": self.now.isoformat() if self.now else None, "thinking": self.thinking}


def values_of(loaded, kept: dict | None = None) -> TemplateValues:
    """The TemplateValues of a LoadedModel. kept: what its run has kept (default: the run that its adapter is from)."""
    ids = getattr(loaded.model.generation_config, "eos_token_id", None)
    return _values(loaded.frozen if kept is None else kept, ids)


def values_of_folder(folder: Path, kept: dict | None = None) -> TemplateValues:
    """The TemplateValues of a model folder whose weights are not loaded. kept: as in `values_of`."""
    return _values(kept, (read_json(folder / "generation_config.json") or {}).get("eos_token_id"))


def kept_beside(adapter: str | Path) -> dict:
    """What the run that an adapter folder is inside of has kept of its template; empty where it is in none.

    Errors: WorkbenchError where that run has lost it.
    """
    for folder in map(RunFolder, list(Path(adapter).absolute().parents)[:3]):
        if folder.config.is_file() and folder.checkpoints.is_dir():
            return read_kept(folder)
        environment = read_json(folder.environment)
        if environment is not None:
            return environment.get(FROZEN) or {}
    return {}


def _values(kept, end_ids):
    """Runs made before this was kept, and files that someone changed, have none of it, or something else."""
    moment, thinking = (kept or {}).get("template_time"), (kept or {}).get("thinking")
    try:
        now = datetime.fromisoformat(moment)
    except (TypeError, ValueError):
        now = None
    ids = end_ids if isinstance(end_ids, list) else [end_ids]
    return TemplateValues(
        now,
        thinking if isinstance(thinking, bool) else None,
        frozenset(number for number in ids if isinstance(number, int)),
    )
