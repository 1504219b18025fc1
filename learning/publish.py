"""Put a version into the world, crash-safe: temporary folder, manifest, rename, then one transaction.

A kill at any moment leaves either the old state or the new one; leftovers are swept at the next night, and the
adapter of a night that was cut short is taken up by the next one that would train the same. The bot finds the new
champion in the registry and verifies the folder by its manifest before serving it.
"""

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from storage import manifest, nights, registry, trust
from storage.database import Database
from storage.domain import Memory, ModelVersion
from storage.errors import IntegrityError, OutOfSpaceError, UserError

log = logging.getLogger(__name__)

KEEP = 1
"""Published folders kept besides champion and previous."""
ADAPTER = "-adapter"
TRAINING = Path("cache", "training")
COPIES_ON_DISK, COPIES_IN_MEMORY = 1.5, 4
"""What a night needs, in sizes of the base in fp32: the merged folder with its adapter, and the merge proof with its
copies."""
ALL_ON_DISK, ALL_IN_MEMORY = 11, 7
"""The same where all weights are trained: three checkpoints with two moments each, the difference, and the merged
folder; and in memory the weights, their gradients of each part of a step, and the moments."""
SPARE_DISK, SPARE_MEMORY = 200 << 20, 500 << 20
"""Bytes beyond that: anchors, index, database and the morning report; libraries."""
MEMORY = Path("/proc/meminfo")
BYTES = 4
"""Of a number in fp32."""


def preflight(home: Path, base: Path, method: str = "lora") -> None:
    """Raise OutOfSpaceError or UserError when disk or memory cannot hold a night, before any time is spent."""
    size = size_in_float32(base)
    on_disk, in_memory = (ALL_ON_DISK, ALL_IN_MEMORY) if method == "full" else (COPIES_ON_DISK, COPIES_IN_MEMORY)
    needed, free = int(on_disk * size) + SPARE_DISK, shutil.disk_usage(home).free
    if free < needed:
        raise OutOfSpaceError(
            f"The night needs {gigabytes(needed)} of free disk in {home} and finds {gigabytes(free)}; "
            "free some space and run it again. The champion goes on serving."
        )
    needed, available = in_memory * size + SPARE_MEMORY, available_memory(MEMORY)
    if available is not None and available < needed:
        raise UserError(
            f"The night needs {gigabytes(needed)} of free memory and finds {gigabytes(available)}; "
            "end other programs or run it on a larger machine. The champion goes on serving."
        )


def size_in_float32(base: Path) -> int:
    """Bytes of the weights in fp32, in which they are trained and merged, or of all files where no header tells."""
    try:
        numbers = sum(map(parameters, base.glob("*.safetensors")))
    except (OSError, SafetensorError) as error:
        log.info("the weights in %s cannot be counted, so their size on disk is taken: %r", base, error)
        numbers = 0
    return BYTES * numbers or manifest.size(base)


def parameters(weights: Path) -> int:
    """How many numbers a safetensors file holds, by its header. Raises SafetensorError when it has none."""
    with safe_open(weights, framework="np") as stored:
        return sum(math.prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118


def available_memory(told: Path) -> int | None:
    """Bytes that programs can still get, as Linux estimates it; None where it does not say."""
    try:
        lines = told.read_text().splitlines()
    except OSError:
        return None
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * kilobytes[0] if kilobytes else None


def gigabytes(size: int) -> str:
    """Bytes in words."""
    return f"{size / 1e9:.1f} GB"


def workshop(home: Path, version: str) -> Path:
    """An empty temporary folder for a version that is being made."""
    folder = home / "models" / f"{manifest.TEMPORARY}{version}"
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
    """Register a version, make it champion and owe its authors the good news, in one transaction.

    Raises ConflictError when it may not serve, as when one of its rows was withdrawn while it was trained.
    """
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


def half_made(database: Database, purpose: dict[str, Any]) -> tuple[str, Path] | None:
    """The (version, sealed adapter) that a night cut short had trained for the same purpose, or None."""
    for folder in sorted((database.home / "models").glob(f"v*{ADAPTER}"), reverse=True):
        version = folder.name.removesuffix(ADAPTER)
        if registry.find(database, version) is None and sealed_for(folder) == json.loads(json.dumps(purpose)):
            return version, folder
    return None


def sealed_for(folder: Path) -> dict[str, Any] | None:
    """What an adapter was trained for; None when it is not whole."""
    sealed = folder / manifest.NAME
    try:
        told = manifest.verify(folder, manifest.sha256(sealed))
    except (IntegrityError, OSError, ValueError, KeyError):
        return None
    purpose: dict[str, Any] | None = told.get("purpose")
    return purpose


def discard(home: Path, version: str) -> None:
    """Delete everything of a version that will not be registered."""
    for name in (version, f"{manifest.TEMPORARY}{version}", f"{version}{ADAPTER}"):
        manifest.discard(home / "models" / name)


def checkpoints(home: Path, purpose: Mapping[str, Any]) -> Path:
    """Where training for a purpose keeps its last epochs."""
    digest = hashlib.sha256(json.dumps(purpose, sort_keys=True).encode()).hexdigest()
    return home / TRAINING / f"{purpose['snapshot']}-{digest[:16]}"


def sweep(database: Database, snapshot: str) -> None:
    """Delete what no version needs: temporary folders, unregistered ones, and versions that are not kept.

    Kept are champion, previous, one more, and what a night that was cut short left of this snapshot (its hash): the
    last adapter, and checkpoints. Weights that hold withdrawn text go, but for those that serve.
    """
    for folder in (database.home / TRAINING).glob("*"):
        if not folder.name.startswith(snapshot):
            shutil.rmtree(folder)
    models = database.home / "models"
    if not models.is_dir():
        return
    kept = {registry.alias(database, "champion"), *worth_keeping(database), *unfinished(database, snapshot)}
    for folder in sorted(p for p in models.iterdir() if p.is_dir()):
        if folder.name.startswith(manifest.TEMPORARY) or (
            folder.name.startswith("v") and not {folder.name, folder.name.removesuffix(ADAPTER)} & kept
        ):
            log.info("removing %s", folder.name)
            manifest.discard(folder)


def worth_keeping(database: Database) -> set[str]:
    """The versions that could serve again: previous, candidate, and the newest others."""
    usable = [v.version for v in registry.versions(database) if not trust.barred(database, v)]
    named = {n for a in ("previous", "candidate") if (n := registry.alias(database, a)) in usable}
    others = [v for v in usable if v not in {*named, registry.alias(database, "champion"), registry.BASE}]
    return {*named, *others[-KEEP:]}


def unfinished(database: Database, snapshot: str) -> set[str]:
    """The newest whole adapter folder that belongs to no registered version and was trained on this snapshot."""
    known = {v.version for v in registry.versions(database)}
    found = [
        folder.name
        for folder in sorted((database.home / "models").glob(f"v*{ADAPTER}"))
        if folder.name.removesuffix(ADAPTER) not in known
        and (purpose := sealed_for(folder))
        and purpose["snapshot"] == snapshot
    ]
    return set(found[-1:])
