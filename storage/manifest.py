"""Sealed folders: a manifest with the size and SHA-256 of every file, and crash-safe renaming into place.

A model folder is written under a temporary name, sealed, synced and renamed; a reader trusts it only after
`verify`. It knows nothing of what the files mean.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from storage.errors import IntegrityError

NAME = "MANIFEST.json"
TEMPORARY = ".tmp-"
"""What stands before the name of a folder that is being made or taken away."""
FOREIGN = (".bin", ".ckpt", ".msgpack", ".pickle", ".pkl", ".pt", ".pth", ".py", ".pyc", ".sh", ".so")
"""Suffixes that can carry code; a model folder that holds one is refused."""


def seal(folder: Path, about: dict[str, Any]) -> str:
    """Write the manifest of a folder and sync everything to disk; returns the manifest's SHA-256.

    Raises IntegrityError when the folder holds what no model folder may hold.
    """
    refuse_foreign(folder)
    files = {}
    for path in sorted(p for p in folder.iterdir() if p.name != NAME):
        sync(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    manifest = folder / NAME
    manifest.write_text(json.dumps({**about, "files": files}, indent=1, sort_keys=True))
    sync(manifest)
    sync(folder)
    return sha256(manifest)


def publish(temporary: Path, final: Path) -> None:
    """Rename a sealed folder into place and make the rename durable."""
    temporary.rename(final)
    sync(final.parent)


def discard(folder: Path) -> None:
    """Delete a folder so that no moment shows half of it under its name; nothing happens when there is none."""
    leaving = folder
    if not folder.name.startswith(TEMPORARY):
        leaving = folder.with_name(f"{TEMPORARY}gone-{folder.name}")
        shutil.rmtree(leaving, ignore_errors=True)
        if folder.is_dir():
            folder.rename(leaving)
    shutil.rmtree(leaving, ignore_errors=True)


def verify(folder: Path, manifest_sha256: str) -> dict[str, Any]:
    """Check every byte of a sealed folder; returns its manifest. Raises IntegrityError that names the file."""
    manifest = folder / NAME
    if not manifest.is_file() or sha256(manifest) != manifest_sha256:
        raise IntegrityError(f"The manifest of {folder.name} is missing or altered.")
    told: dict[str, Any] = json.loads(manifest.read_text())
    refuse_foreign(folder)
    if {p.name for p in folder.iterdir()} - {NAME} != set(told["files"]):
        raise IntegrityError(f"{folder.name} holds other files than its manifest lists.")
    for name, facts in told["files"].items():
        path = folder / name
        if path.stat().st_size != facts["bytes"] or sha256(path) != facts["sha256"]:
            raise IntegrityError(f"{name} in {folder.name} does not match its recorded hash.")
    return told


def refuse_foreign(folder: Path) -> None:
    """Raise IntegrityError when a folder holds a link, another folder, or a file that can carry code."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            raise IntegrityError(f"{path.name} in {folder.name} is not a plain file, so the folder is refused.")
        if path.suffix.lower() in FOREIGN:
            raise IntegrityError(f"{path.name} in {folder.name} can carry code, so the folder is refused.")


def size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(p.stat().st_size for p in folder.iterdir() if p.is_file())


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
