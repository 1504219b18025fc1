"""What libraries must find in the process environment before they are imported.

Entry points call `prepare` once. It knows nothing of our own settings; those are `storage.settings`'.
"""

import os

FOR_LIBRARIES = {
    # The bot and the night share two cores. OpenMP threads that spin while they wait make each other up to thirty
    # times slower (DECISIONS.md, 2026-11-20); passive ones cost nothing measurable when a process is alone.
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "ANONYMIZED_TELEMETRY": "False",
}


def prepare(*, hub: bool = False) -> None:
    """Set what is not set yet; with `hub`, a model was named that may be downloaded."""
    for name, value in FOR_LIBRARIES.items():
        os.environ.setdefault(name, value)
    if hub:
        os.environ["HF_HUB_OFFLINE"] = "0"
