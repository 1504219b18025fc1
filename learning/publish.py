"""Put a version into the world, crash-safe: temporary folder, manifest, rename, then one transaction.

A kill at any moment leaves either the old state or the new one; leftovers are swept at the next night. The bot
finds the new champion in the registry and verifies the folder by its manifest before serving it.
"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from storage import manifest, nights, registry
from storage.database import Database
from storage.domain import Memory, ModelVersion

log = logging.getLogger(__name__)

TEMPORARY = ".tmp-"
KEEP = 1
"""Published folders kept besides champion and previous."""


def workshop(home: Path, version: str) -> Path:
    """An empty temporary folder for a version that is being made."""
    folder = home / "models" / f"{TEMPORARY}{version}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def seal(folder: Path, version: str, canaries: Sequence[dict[str, str]], about: dict[str, Any]) -> tuple[Path, str]:
    """Seal a finished folder and rename it to its version's name; returns (folder, SHA-256 of the manifest)."""
    digest = manifest.seal(folder, {"version": version, "canaries": list(canaries), **about})
    final = folder.parent / version
    manifest.publish(folder, final)
    return final, digest


def promote(database: Database, version: ModelVersion, memories: tuple[Memory, ...]) -> None:
    """Register a version, make it champion and owe its authors the good news, in one transaction."""
    before = registry.memories(database, registry.champion(database))
    with database.write():
        registry.register(database, version)
        registry.remember(database, memories)
        registry.promote(database, version.version)
        for memory in memories:
            known = before.get(memory.correction_id)
            if memory.memorised and not (known and known.memorised):
                owe_good_news(database, memory)


def owe_good_news(database: Database, memory: Memory) -> None:
    """Tell the author that their correction is in the weights now."""
    row = database.row("SELECT author, question FROM corrections WHERE id = ?", [memory.correction_id])
    if row:
        payload = {
            "correction_id": memory.correction_id,
            "question": row["question"],
            "version": memory.version,
        }
        nights.owe(database, row["author"], "fix_live", payload)


def sweep(database: Database) -> None:
    """Delete what no version needs: temporary folders, unregistered ones, and versions older than the kept ones."""
    models = database.home / "models"
    if not models.is_dir():
        return
    versions = [v.version for v in registry.versions(database) if v.version != registry.BASE]
    aliases = {registry.alias(database, name) for name in ("champion", "previous", "candidate")}
    kept = aliases | set([v for v in versions if v not in aliases][-KEEP:])
    for folder in models.iterdir():
        name = folder.name.removesuffix("-adapter")
        if name.startswith(TEMPORARY) or (name.startswith("v") and name not in kept):
            log.info("removing %s", folder.name)
            shutil.rmtree(folder, ignore_errors=True)
