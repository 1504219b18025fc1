"""What libraries must find in the process environment before they are imported.

Entry points call `prepare` once. It knows nothing of our own settings; those are `storage.settings`'.
"""

import os

FOR_LIBRARIES = {
    # The bot and the night share two cores. OpenMP threads that spin while they wait make each other up to thirty
    # times slower, and those that sleep at once are woken on the core of the one that waits for them. Some ten
    # microseconds of spinning bridge the gaps within a pass, and no longer ones (DECISIONS.md, 2026-11-20).
    "OMP_WAIT_POLICY": "ACTIVE",
    "GOMP_SPINCOUNT": "1000",
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
