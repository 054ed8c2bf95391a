"""Public names that are imported on first use, so that importing a package stays light."""

import sys
from collections.abc import Callable
from importlib import import_module


def lazy_names(package: str, homes: dict[str, str]) -> tuple[Callable, Callable, list[str]]:
    """(__getattr__, __dir__, __all__) of a package whose public names are imported on first use (PEP 562).

    homes: public name -> module that defines it, relative to the package; "" for a name that is itself a sub-package.
    """

    def __getattr__(name):
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f".{homes[name] or name}", package)
        value = getattr(module, name) if homes[name] else module
        setattr(sys.modules[package], name, value)
        return value

    def __dir__():
        return sorted({*vars(sys.modules[package]), *homes})

    return __getattr__, __dir__, sorted(homes)
