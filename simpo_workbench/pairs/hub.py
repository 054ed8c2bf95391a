"""Preference pairs from the hub: the raw rows of a data set id, or one sentence on why they cannot be loaded."""

import contextlib
import re
import socket
import urllib.parse
import urllib.request

from ..base.errors import WorkbenchError, first_line
from .files import Source, read_dataset

_HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?(:[\w.-]+)?")


def is_hub_id(text) -> bool:
    """Whether a text looks like a hub dataset id, with or without ":split"."""
    return _HUB_ID.fullmatch(text) is not None


def read_hub(source) -> Source:
    """The rows of a hub dataset "owner/name" or "owner/name:split" (by default the split "train").

    Code from the hub is never run. Errors: WorkbenchError when it is not found or gated, without a network, for an
    unknown split or several configurations.
    """
    import datasets

    name, _, split = source.partition(":")
    try:
        with _offline_where_unreachable():
            dataset = datasets.load_dataset(name, split=split or "train")
    except Exception as error:  # datasets, huggingface_hub, httpx and the builders each raise their own
        raise WorkbenchError(_sentence(name, split or "train", error)) from error
    return read_dataset(dataset, source)


@contextlib.contextmanager
def _offline_where_unreachable():
    """Within this block the hub's libraries use their cache alone where the hub's name cannot be resolved: they would
    try for half a minute, and print every try.
    """
    import datasets.config
    import huggingface_hub.constants

    settings = (datasets.config, huggingface_hub.constants)
    host = urllib.parse.urlsplit(huggingface_hub.constants.ENDPOINT).hostname
    if urllib.request.getproxies() or not host or _is_known(host):  # a proxy resolves names itself
        yield
        return
    before = [module.HF_HUB_OFFLINE for module in settings]
    for module in settings:
        module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in zip(settings, before, strict=True):
            module.HF_HUB_OFFLINE = value


def _is_known(host):
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


def _sentence(name, split, error):
    text = str(error)
    types = {kind.__name__ for kind in type(error).__mro__}
    if "gated" in text.lower() or "GatedRepoError" in types:
        return (
            f"The dataset '{name}' is gated. Accept its terms on its hub page and log in with `hf auth login` (or set"
            " HF_TOKEN)."
        )
    if "DatasetNotFoundError" in types or "RepositoryNotFoundError" in types:
        return (
            f"'{name}' is neither a file here nor a dataset that the hub shows you. Check the spelling; for a private"
            " dataset log in with `hf auth login` (or set HF_TOKEN)."
        )
    if types & {
        "ConnectionError",
        "OfflineModeIsEnabled",
        "ConnectError",
        "ConnectTimeout",
        "ReadTimeout",
        "TimeoutError",
        "LocalEntryNotFoundError",
    }:
        return (
            f"'{name}' is no file here, and the hub cannot be reached (no network, or offline mode). Give a local file,"
            " or go online (HF_ENDPOINT names a mirror)."
        )
    if splits := re.search(r"Unknown split.*?Should be one of (\[.*?\])", text, re.DOTALL):
        return (
            f"The dataset '{name}' has no split '{split}', only {splits[1]}. Name one after a colon, as in"
            f" '{name}:test'."
        )
    if "Config name is missing" in text:
        return (
            f"The dataset '{name}' has several configurations: {_names_in(text)}. Load one with"
            f" datasets.load_dataset('{name}', '…', split='{split}') and pass the result."
        )
    return f"The dataset '{name}' cannot be loaded: {first_line(error)}."


def _names_in(text):
    """The first [...] list in a message, or its first line."""
    names = re.search(r"\[.*?\]", text, re.DOTALL)
    return names[0][:300] if names else first_line(text)
