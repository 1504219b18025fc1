"""Which numbers stop a promotion: one table, each row with its reason.

A gate compares one measured value with one threshold. All gates are always evaluated and reported; one that fails
keeps the champion. Where two models did the same items there are two kinds: a hard stop on the figure as measured, and
a bound or p-value (`paired`) on what chance does not explain, so that a few unlucky items cannot stop a night and many
small losses cannot slip through. It knows nothing of how the values were measured.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Gate:
    """A row of the table: `at_least` or `at_most` the threshold."""

    name: str
    rule: str
    threshold: float
    reason: str


TABLE: tuple[Gate, ...] = (
    Gate(
        "new_facts",
        "at_least",
        1,
        "how many were memorised: one is worth a swap, and those that were not keep their override",
    ),
    Gate(
        "old_facts",
        "at_least",
        0.95,
        "what was known stays known; a single loss counts as none, for it falls back to its override",
    ),
    Gate(
        "old_facts_lost",
        "at_most",
        0.02,
        "lower 95 % bound of the paired drop of known facts against the champion; of hundreds, 5 % would be dozens",
    ),
    Gate(
        "near_misses",
        "at_most",
        0.5,
        "lower 95 % bound on untrained near-misses that get the trained answer closed-book, with no help",
    ),
    Gate(
        "general_battery",
        "at_least",
        0.85,
        "simple questions right, relative to the base; seeds stop at -15 %",
    ),
    Gate(
        "battery_worse",
        "at_least",
        0.05,
        "exact p-value (McNemar) of simple questions lost against won: a loss beyond chance stops before -15 % does",
    ),
    Gate("general_drift", "at_most", 0.30, "mean KL to the base on held-out general answers, nats per token"),
    Gate(
        "general_loss",
        "at_most",
        0.05,
        "lower 95 % bound of the rise on general texts, nats per token; 0.05 makes a text 5 % less likely a token",
    ),
    Gate("reading", "at_least", 0.85, "answers found in a given passage, relative to the base; the same hard stop"),
    Gate(
        "reading_drop",
        "at_most",
        0.02,
        "lower 95 % bound of the paired drop in answers found in a passage: more than two points are proven to be lost",
    ),
    Gate(
        "stop_format",
        "at_most",
        0.02,
        "lower 95 % bound of the paired drop in answers that end, have words, and neither loop nor show template marks",
    ),
    Gate("merge_logits", "at_most", 1e-3, "merged-from-disk must be base + adapter"),
    Gate("merge_tokens", "at_least", 0.99, "and choose the same tokens"),
    Gate("changed", "at_least", 1e-6, "a merge that changes no weight taught nothing"),
    Gate("finite", "at_least", 1.0, "every weight is a finite number"),
    Gate(
        "same_tokenizer",
        "at_least",
        1.0,
        "vocabulary, chat template and end-of-sequence token as in the base",
    ),
    Gate("same_generation", "at_least", 1.0, "the generation settings that the folder ships are those of the base"),
)

MENDED_BY_LESS = frozenset(
    {
        "near_misses", "general_battery", "battery_worse", "general_drift", "general_loss", "reading", "reading_drop",
        "stop_format",
    }
)  # fmt: skip
"""What a smaller share of the adapter can mend."""


@dataclass(frozen=True)
class Verdict:
    """All gates with their values; `passed` when none failed."""

    gates: tuple[dict[str, Any], ...]

    @property
    def passed(self) -> bool:
        """Whether every gate that was measured passed."""
        return all(g["passed"] for g in self.gates)

    @property
    def only_forgot(self) -> bool:
        """Whether nothing failed but what a smaller share of the adapter can mend."""
        return {g["name"] for g in self.gates if not g["passed"]} <= MENDED_BY_LESS

    @property
    def reason(self) -> str:
        """One sentence for people."""
        failed = [f"{g['name']} is {g['value']:.4g} and must be {words(g)}" for g in self.gates if not g["passed"]]
        return "; ".join(failed) or "every gate passed"


def judge(values: Mapping[str, float]) -> Verdict:
    """Hold measured values against the table; a value that is missing was not applicable, NaN never passes."""
    return Verdict(
        tuple(
            asdict(g) | {"value": values[g.name], "passed": holds(g, values[g.name])} for g in TABLE if g.name in values
        )
    )


def holds(gate: Gate, value: float) -> bool:
    """Whether a value passes its gate."""
    return value >= gate.threshold if gate.rule == "at_least" else value <= gate.threshold


def words(gate: Mapping[str, Any]) -> str:
    """The rule of a gate in words."""
    return f"{gate['rule'].replace('_', ' ')} {gate['threshold']:g}"
