"""How many secrets the shapes of `storage.private` find, and how often they take a harmless line for one.

500 texts with a secret and 2,000 without, made from hand-written lines (`secrets.jsonl`) whose blanks are filled with
random values of each issuer's format, seeded. The first half was written beside the shapes; the second half after they
were fixed, and is reported apart: only its first look says how the shapes do on what they were not written for.

    python -m tests.bench.secrets            the figures as JSON
    python -m tests.bench.secrets --missed   every text that was missed or wrongly taken, too
"""

import base64
import json
import random
import re
import string
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from storage import private

LINES = Path(__file__).with_name("secrets.jsonl")
SEED = 20261120
POSITIVES, BENIGN = 250, 1000
"""Texts in each half."""
HEX, ALNUM, UPPER = "0123456789abcdef", string.ascii_letters + string.digits, string.ascii_uppercase + string.digits
URLSAFE, BASE64, BASE32 = ALNUM + "-_", ALNUM + "+/", string.ascii_uppercase + "234567"
WORDS = ("maple", "harbor", "lantern", "copper", "meadow", "falcon", "winter", "saffron", "granite", "velvet", "comet")


@dataclass(frozen=True)
class Line:
    """A hand-written text with blanks; `half` is first or held_out, `kind` says what is hidden or what looks alike."""

    half: str
    secret: bool
    kind: str
    text: str


class Values:
    """Random values by the name of the blank that they fill."""

    def __init__(self, seed: int) -> None:
        """Begin at a seed."""
        self.random = random.Random(seed)

    def fill(self, text: str) -> str:
        """A line with every `{{name}}` filled."""
        return re.sub(r"\{\{(\w+)\}\}", lambda blank: getattr(self, blank[1])(), text)

    def of(self, letters: str, count: int) -> str:
        """So many of some letters."""
        return "".join(self.random.choices(letters, k=count))

    def digits(self, count: int) -> str:
        """So many digits, the first not 0."""
        return self.random.choice("123456789") + self.of(string.digits, count - 1)

    # issuers' formats

    def aws(self) -> str:
        return self.random.choice(["AKIA", "ASIA"]) + self.of(UPPER, 16)

    def aws_secret(self) -> str:
        return self.of(BASE64, 40)

    def github(self) -> str:
        return self.random.choice(["ghp_", "gho_", "ghs_"]) + self.of(ALNUM, 36)

    def github_fine(self) -> str:
        return f"github_pat_{self.of(ALNUM, 22)}_{self.of(ALNUM, 59)}"

    def gitlab(self) -> str:
        return "glpat-" + self.of(URLSAFE.replace("_", ""), 19) + "k"

    def slack(self) -> str:
        return f"{self.random.choice(['xoxb', 'xoxp'])}-{self.digits(12)}-{self.digits(12)}-{self.of(ALNUM, 24)}"

    def slack_app(self) -> str:
        return f"xapp-1-A{self.of(UPPER, 10)}-{self.digits(13)}-{self.of(HEX, 64)}"

    def slack_hook(self) -> str:
        return f"https://hooks.slack.com/services/T{self.of(UPPER, 8)}/B{self.of(UPPER, 8)}/{self.of(ALNUM, 24)}"

    def discord_hook(self) -> str:
        return f"https://discord.com/api/webhooks/{self.digits(18)}/{self.of(URLSAFE, 68)}"

    def stripe(self) -> str:
        return self.random.choice(["sk_live_", "rk_live_", "sk_test_"]) + self.of(ALNUM, 24)

    def openai(self) -> str:
        return self.random.choice(["sk-proj-", "sk-"]) + self.of(ALNUM, 48)

    def anthropic(self) -> str:
        return f"sk-ant-api03-{self.of(URLSAFE, 90)}AA"

    def google(self) -> str:
        return "AIza" + self.of(ALNUM, 35)

    def google_client(self) -> str:
        return "GOCSPX-" + self.of(ALNUM, 28)

    def npm(self) -> str:
        return "npm_" + self.of(ALNUM, 36)

    def pypi(self) -> str:
        return "pypi-AgEIcHlwaS5vcmc" + self.of(ALNUM, 90)

    def sendgrid(self) -> str:
        return f"SG.{self.of(ALNUM, 22)}.{self.of(ALNUM, 43)}"

    def huggingface(self) -> str:
        return "hf_" + self.of(string.ascii_letters, 34)

    def digitalocean(self) -> str:
        return "dop_v1_" + self.of(HEX, 64)

    def databricks(self) -> str:
        return "dapi" + self.of(HEX, 32)

    def shopify(self) -> str:
        return "shpat_" + self.of(HEX, 32)

    def vault(self) -> str:
        return "hvs." + self.of(ALNUM, 90)

    def telegram(self) -> str:
        return f"{self.digits(10)}:AA{self.of(ALNUM, 33)}"

    def jwt(self) -> str:
        head, body = '{"alg":"HS256"}', json.dumps({"sub": self.digits(8)})
        return f"{self.base64url(head)}.{self.base64url(body)}.{self.of(ALNUM, 43)}"

    def pem(self) -> str:
        name = self.random.choice(["RSA ", "EC ", "OPENSSH ", ""])
        lines = "\n".join(self.of(BASE64, 64) for _ in range(3))
        return f"-----BEGIN {name}PRIVATE KEY-----\n{lines}\n-----END {name}PRIVATE KEY-----"

    def azure_key(self) -> str:
        return self.of(BASE64, 86) + "=="

    def totp(self) -> str:
        return self.of(BASE32, 16)

    def basic(self) -> str:
        return base64.b64encode(f"admin:{self.strong()}".encode()).decode()

    def hex32(self) -> str:
        return self.of(HEX, 32)

    def hex40(self) -> str:
        return self.of(HEX, 40)

    def hex64(self) -> str:
        return self.of(HEX, 64)

    def key32(self) -> str:
        return self.of(ALNUM, 32)

    # passwords as people make them

    def strong(self) -> str:
        core = self.of(ALNUM, 9) + self.random.choice("!$%&*#?") + self.of(ALNUM, 3)
        return core if not core[0].isdigit() else "q" + core

    def season(self) -> str:
        return (
            self.word().capitalize()
            + self.random.choice(["2025", "2026", "77", "1!"])
            + self.random.choice(["!", "", "#"])
        )

    def dashed(self) -> str:
        return f"{self.word().capitalize()}-{self.word()}-{self.digits(2)}"

    def passphrase(self) -> str:
        return "-".join(self.word() for _ in range(4))

    def word(self) -> str:
        return self.random.choice(WORDS)

    # numbers

    def card(self) -> str:
        body = self.random.choice(["4", "51", "55", "2221"]) + self.of(string.digits, 20)
        number = next(n for d in string.digits if private.luhn(n := body[:15] + d))
        joint = self.random.choice([" ", "-", ""])
        return joint.join(number[i : i + 4] for i in range(0, 16, 4))

    def amex(self) -> str:
        body = self.random.choice(["34", "37"]) + self.of(string.digits, 12)
        return next(n for d in string.digits if private.luhn(n := body + d))

    def iban(self) -> str:
        land, bank = self.random.choice([("DE", 18), ("AT", 16), ("EE", 16), ("NL", 0), ("GB", 0)])
        body = (
            self.of(string.digits, bank)
            if bank
            else self.of(UPPER[:26], 4) + self.of(string.digits, 14 if land == "GB" else 10)
        )
        check = next(f"{c:02}" for c in range(2, 99) if private.iban(f"{land}{c:02}{body}"))
        whole = f"{land}{check}{body}"
        return whole if self.random.random() < 0.5 else " ".join(whole[i : i + 4] for i in range(0, len(whole), 4))

    # what only looks like one

    def number16(self) -> str:
        return self.digits(16)

    def luhn16(self) -> str:
        body = self.random.choice(["1", "8", "9", "70"]) + self.of(string.digits, 20)
        return next(n for d in string.digits if private.luhn(n := body[:15] + d))

    def iban_like(self) -> str:
        land = self.random.choice(["DE", "FR", "PO", "XX"])
        made = (f"{land}{self.digits(2)} {self.digits(4)} {self.digits(4)} {self.digits(4)}" for _ in range(50))
        return next(text for text in made if not private.iban(text))

    def uuid(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def sha(self) -> str:
        return self.of(HEX, self.random.choice([7, 10, 40, 64]))

    def version(self) -> str:
        return f"{self.random.randint(0, 9)}.{self.random.randint(0, 40)}.{self.random.randint(0, 9)}"

    def ticket(self) -> str:
        return f"{self.random.choice(['PAY', 'OPS', 'SEC'])}-{self.digits(4)}"

    def day(self) -> str:
        return f"2026-{self.random.randint(1, 12):02}-{self.random.randint(1, 28):02}"

    def digits4(self) -> str:
        return self.digits(4)

    def digits9(self) -> str:
        return self.digits(9)

    def digits13(self) -> str:
        return self.digits(13)

    def small(self) -> str:
        return str(self.random.randint(2, 90))

    def base64url(self, text: str) -> str:
        """A text as a part of a web token."""
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def lines() -> list[Line]:
    """The hand-written lines."""
    return [Line(**json.loads(row)) for row in LINES.read_text(encoding="utf-8").splitlines()]


def texts(half: str, *, secret: bool, seed: int = SEED) -> list[tuple[Line, str]]:
    """The texts of a half, each with the line that it was made from: every line about equally often."""
    chosen = [line for line in lines() if line.half == half and line.secret is secret]
    values = Values(seed + len(chosen))
    wanted = POSITIVES if secret else BENIGN
    return [(line := chosen[i % len(chosen)], values.fill(line.text)) for i in range(wanted)]


def measure(half: str) -> dict[str, Any]:
    """Recall and false positives of a half, by kind, with the texts that went wrong."""
    hidden, harmless = texts(half, secret=True), texts(half, secret=False)
    missed = [(line.kind, text) for line, text in hidden if not private.find_secrets(text)]
    taken = [(line.kind, text) for line, text in harmless if private.find_secrets(text)]
    return {
        "half": half,
        "positives": len(hidden),
        "recall": round(1 - len(missed) / len(hidden), 4),
        "benign": len(harmless),
        "false_positives": len(taken),
        "false_positive_rate": round(len(taken) / len(harmless), 4),
        "missed_by_kind": dict(Counter(kind for kind, _ in missed)),
        "taken_by_kind": dict(Counter(kind for kind, _ in taken)),
        "missed": missed,
        "taken": taken,
    }


@click.command()
@click.option("--missed", is_flag=True, help="Show every text that was missed or wrongly taken.")
def main(missed: bool) -> None:
    """Measure both halves."""
    found = [measure(half) for half in ("first", "held_out")]
    for row in found:
        for name in ("missed", "taken"):
            texts_of_kind = row.pop(name)
            if missed:
                row[name] = texts_of_kind
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
