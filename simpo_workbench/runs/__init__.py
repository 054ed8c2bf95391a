"""A run on disk and its process: folder, status, requests, launching, the queue, models elsewhere."""

from typing import TYPE_CHECKING

from ..base.lazy import lazy_names

#: Public name -> the module that defines it.
_HOMES = {
    "start_many": "launch",
    "list_queue": "device_queue",
    "start_preflight": "remote_preflight",
    "delete_run": "root",
}

__getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)

if TYPE_CHECKING:  # so that editors and type checkers see the names that are loaded lazily
    from .device_queue import list_queue
    from .launch import start_many
    from .remote_preflight import start_preflight
    from .root import delete_run
