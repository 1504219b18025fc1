"""What is measured or asked once and kept as JSON in the cache folder, whole or not at all.

A disk that fills up or a kill while it is written leaves nothing behind that a later night would stumble over.
"""

import json
from pathlib import Path
from typing import Any


def read(stored: Path) -> Any:
    """What was kept, or None; a file that cannot be read counts as none."""
    try:
        return json.loads(stored.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def write(stored: Path, told: Any) -> None:
    """Keep something. Raises OSError when the disk refuses it; what was kept before stays then."""
    stored.parent.mkdir(parents=True, exist_ok=True)
    temporary = stored.with_suffix(".tmp")
    temporary.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
    temporary.replace(stored)
