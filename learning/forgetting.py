"""What later nights made of what earlier ones taught: the matrix R, and the three figures that are read from it.

R[i][j] is the share of the facts first taught in night j that the version of night i holds, by the proofs that every
night stores. Facts that the last version was not trained on are in no row: they were taken back, which is forgetting
on purpose. Source of the figures: Lopez-Paz and Ranzato, Gradient Episodic Memory, 2017, section 2. It reads stored
rows, and loads no model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from storage import registry
from storage.database import Database
from storage.domain import ModelVersion

Held = Mapping[int, bool]
"""What one version was trained on: correction ids, and whether each was memorised."""


@dataclass(frozen=True)
class Column:
    """The facts of one night: which version first held them (its row), and their correction ids."""

    row: int
    facts: tuple[int, ...]


@dataclass(frozen=True)
class Matrix:
    """R with its rows (versions, oldest first) and columns (nights that taught something that still stands)."""

    versions: tuple[str, ...]
    columns: tuple[Column, ...]
    shares: tuple[tuple[float | None, ...], ...]

    @property
    def average(self) -> float | None:
        """Average accuracy: the mean of the last row. None before the first night."""
        return mean([share for share in self.shares[-1] if share is not None]) if self.shares else None

    @property
    def backward(self) -> float | None:
        """Backward transfer (BWT): the mean change of each earlier night's share from its own night to the last.

        Negative is forgetting. None when there is no earlier night.
        """
        changes = [
            last - own
            for at, column in enumerate(self.columns)
            if column.row < len(self.shares) - 1
            and (last := self.shares[-1][at]) is not None
            and (own := self.shares[column.row][at]) is not None
        ]
        return mean(changes)

    def named(self) -> dict[str, float]:
        """Every entry as `R[i,j]`, nights counted from 1."""
        return {
            f"R[{i},{self.columns[j].row + 1}]": share
            for i, row in enumerate(self.shares, 1)
            for j, share in enumerate(row)
            if share is not None
        }


def forward(before: Sequence[float], untrained: Sequence[float]) -> float | None:
    """Forward transfer (FWT): what each night's facts gained from the nights before, over the untouched base.

    `before` is each later night's share under the version before it, `untrained` the same under the base. None when
    there is no later night. Raises ValueError when the two differ in length.
    """
    return mean([b - u for b, u in zip(before, untrained, strict=True)])


def mean(values: Sequence[float]) -> float | None:
    """The mean, None of nothing."""
    return sum(values) / len(values) if values else None


def matrix(rows: Sequence[tuple[str, Held]]) -> Matrix:
    """R of some versions, oldest first, each with what it was trained on and memorised."""
    standing = set(rows[-1][1]) if rows else set()
    columns: list[Column] = []
    seen: set[int] = set()
    for at, (_, held) in enumerate(rows):
        new = tuple(sorted((set(held) & standing) - seen))
        seen |= set(held)
        if new:
            columns.append(Column(at, new))
    shares = tuple(
        tuple(share_of(held, column.facts) if column.row <= at else None for column in columns)
        for at, (_, held) in enumerate(rows)
    )
    return Matrix(tuple(name for name, _ in rows), tuple(columns), shares)


def share_of(held: Held, facts: Sequence[int]) -> float | None:
    """The share of some facts that a version has memorised, of those it was trained on; None of none."""
    return mean([float(held[fact]) for fact in facts if fact in held])


def stored(database: Database, version: str | None) -> Matrix:
    """R along the line of promoted versions that ends in `version`, without rows for None.

    Raises NotFoundError for an unknown version.
    """
    line = lineage(database, version) if version else []
    return matrix([(v.version, held_by(database, v.version)) for v in line])


def lineage(database: Database, version: str) -> list[ModelVersion]:
    """A version and its ancestors without the base, oldest first."""
    line: list[ModelVersion] = []
    found: ModelVersion | None = registry.get(database, version)
    while found is not None and found.version != registry.BASE:
        line.append(found)
        found = registry.find(database, found.parent)
    return line[::-1]


def held_by(database: Database, version: str) -> dict[int, bool]:
    """What a version was trained on, and whether it memorised it."""
    return {i: memory.memorised for i, memory in registry.memories(database, version).items()}


def in_words(found: Matrix) -> str:
    """The figures in one sentence; empty before the second night, when nothing could be forgotten yet."""
    if found.backward is None or found.average is None:
        return ""
    moved = "forgot nothing" if found.backward >= 0 else f"forgot {-found.backward:.1%}"
    return (
        f"**Over {len(found.versions)} nights** the model {moved} of what earlier nights taught "
        f"(backward transfer {found.backward:+.3f}) and holds {found.average:.0%} of each night's facts on average."
    )
