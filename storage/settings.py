"""The one table of settings: name, default, one sentence of help.

Entry points read the environment once with `load` and pass the values on; no other module reads it.
A setting NAME is read from the variable NIGHTSHIFT_NAME, the two Slack tokens from Slack's own names.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from storage.errors import UserError


@dataclass(frozen=True)
class Setting:
    """One row of the table; the default's type is the setting's type. A number lies between `least` and `most`."""

    name: str
    default: str | int | float
    help: str
    choices: tuple[str, ...] = ()
    least: float = 0
    most: float = 1_000_000

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return self.name if self.name.startswith("SLACK_") else f"NIGHTSHIFT_{self.name}"


TABLE: tuple[Setting, ...] = (
    Setting("HOME", "./data", "Folder that holds the database, the index and the models."),
    Setting("BASE_MODEL", "embedded", "Base model: 'embedded', a local folder, or a hub name (downloads)."),
    Setting("EMBEDDER", "embedded", "Sentence embedder: 'embedded', a local folder, or a hub name (downloads)."),
    Setting(
        "SERVING_FORM",
        "auto",
        "Form of the serving weights: 'auto' is the quickest that the night measured to lose nothing on this machine.",
        ("auto", "bfloat16", "float32", "int8"),
    ),
    Setting("ENGINE", "", "Address of an OpenAI-compatible model server, http://host:8000/v1; empty: none is used."),
    Setting(
        "ENGINE_ROLE",
        "serve",
        "What the engine does: 'serve' the answers, or only 'help' with wordings and judgements.",
        ("serve", "help"),
    ),
    Setting("ENGINE_MODEL", "", "A stronger model on that server, by its name there, for wordings and judgements."),
    Setting("ENGINE_KEY", "", "API key of that server; it is never logged."),
    Setting("ENGINE_SECONDS", 30.0, "Longest time that one request to that server may take."),
    Setting("MAX_ANSWER_TOKENS", 96, "Longest answer that the model may write, in tokens.", least=1),
    Setting("MAX_QUESTION_CHARS", 4000, "Longest question that is accepted, in characters.", least=1),
    Setting("QUEUE_LIMIT", 64, "Questions that may wait before new ones are refused with a sentence.", least=1),
    Setting(
        "ANSWERS_TOGETHER", 16, "Waiting questions that are answered together, sharing passes of the models.", least=1
    ),
    Setting("ANSWER_DEADLINE", 120.0, "Seconds that a question may wait before a sentence asks to try again; 0: any."),
    Setting("QUEUE_NOTICE", 8, "Questions in hand above which a new asker is told their place in the queue."),
    Setting("TARGET_WRONG", 0.02, "Highest share of wrong answers among those given directly from memory.", most=0.5),
    Setting(
        "TARGET_WRONG_DOCUMENTS",
        0.05,
        "Highest share of wrong answers among those that a model writes from documents (quotes follow a fixed share).",
        most=0.5,
    ),
    Setting("ADMINS", "", "Slack user ids and user group ids that may approve corrections, separated by commas."),
    Setting("GUESTS", "refuse", "Guests and people of other organisations: 'refuse' or 'allow' their questions."),
    Setting("REVIEW_CHANNEL", "", "Slack channel id where review cards and nightly reports are posted."),
    Setting("ASK_A_PERSON", "", "Whom to ask: default=U1,C0HELP=U2,topic:payroll=U3 (ids of people or channels)."),
    Setting("SLACK_API_URL", "https://slack.com/api/", "Base URL of Slack's Web API."),
    Setting(
        "RETENTION_DAYS",
        0,
        "Days after which the words of questions and answers are erased; 0 keeps them.",
        most=36_500,
    ),
    Setting("BACKUPS_KEEP", 7, "How many backups are kept; older ones are deleted.", least=1),
    Setting("SEED", 7, "Seed of the nightly run; it is stored with the run.", most=2**32 - 1),
    Setting("CAP_PER_AUTHOR", 20, "New corrections of one author that a night trains; the rest wait. 0 is no limit."),
    Setting("QUARANTINE_HOURS", 0, "Hours that an approved correction waits before a night may train it."),
    Setting(
        "FOUR_EYES",
        "author",
        "Who may not approve a correction: its 'author', or with 'text' also whoever changed its text.",
        ("author", "text"),
    ),
    Setting("FLOOD_LIMIT", 3, "Corrections of one matter within FLOOD_HOURS; further ones are held. 0 holds none."),
    Setting("FLOOD_HOURS", 24, "Hours within which corrections of one matter count as a flood."),
    Setting("QUESTIONS_PER_MINUTE", 40, "Questions that one person may ask in Slack within a minute; 0 is no limit."),
    Setting("TEACHING_PER_MINUTE", 20, "Votes and corrections of one person in Slack within a minute; 0 is no limit."),
    Setting("COMPANY_CONTACTS", "", "Domains, e-mail addresses and phone numbers that are no one's private ones."),
    Setting("TRAIN_EPOCHS", 0, "Epochs of the nightly training; 0 chooses by the number of facts."),
    Setting(
        "TRAIN_RATE",
        0.0,
        "Peak learning rate; 0 chooses by the number of facts. The method 'full' wants about 0.00005.",
        most=1,
    ),
    Setting(
        "TRAIN_METHOD",
        "lora",
        "What is trained: 'lora' adapters, 'full' (all weights), or 'qlora' (adapters on a 4-bit base; needs CUDA).",
        ("lora", "full", "qlora"),
    ),
    Setting(
        "TRAIN_SCHEDULE",
        "single",
        "How: 'single' stage, 'staged' (light, medium, deep) or 'progressive' (upper layers first).",
        ("single", "staged", "progressive"),
    ),
    Setting("BENCH_DATA", "", "Folder with hellaswag/ and truthfulqa/, which 'nightshift evaluate' reads if named."),
    Setting("BENCH_ITEMS", 1000, "At most so many HellaSwag tasks and TruthfulQA questions are measured.", least=1),
    Setting("LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING or ERROR."),
    Setting("SLACK_BOT_TOKEN", "", "Slack bot token, starts with xoxb-."),
    Setting("SLACK_APP_TOKEN", "", "Slack app-level token with connections:write, starts with xapp-."),
)


@dataclass(frozen=True)
class Settings:
    """The values of one process. Read with `settings.text("HOME")`, `.integer(...)`, `.number(...)`."""

    values: Mapping[str, str | int | float]

    def text(self, name: str) -> str:
        """A setting as text."""
        return str(self.values[name])

    def integer(self, name: str) -> int:
        """A setting as a whole number."""
        return int(self.values[name])

    def number(self, name: str) -> float:
        """A setting as a number."""
        return float(self.values[name])

    def names(self, name: str) -> frozenset[str]:
        """A comma-separated setting as a set."""
        return frozenset(part.strip() for part in self.text(name).split(",") if part.strip())

    @property
    def home(self) -> Path:
        """The home folder, absolute."""
        return Path(self.text("HOME")).expanduser().resolve()


def load(
    environment: Mapping[str, str] | None = None, *, overrides: Mapping[str, str | int | float] | None = None
) -> Settings:
    """Read the table from the environment. Raises UserError that names every malformed value at once."""
    environment = os.environ if environment is None else environment
    values: dict[str, str | int | float] = {}
    wrong = []
    for setting in TABLE:
        given = environment.get(setting.variable, "").strip()
        try:
            values[setting.name] = value_of(setting, given) if given else setting.default
        except ValueError as error:
            wrong.append(f"{setting.variable}={given!r} {error}")
    if wrong:
        raise UserError("Settings that cannot be read: " + "; ".join(wrong) + ".")
    return Settings(values | dict(overrides or {}))


def value_of(setting: Setting, given: str) -> str | int | float:
    """The value of a setting that was given as text. Raises ValueError that says what is wrong with it."""
    if isinstance(setting.default, str):
        if setting.choices and given not in setting.choices:
            raise ValueError(f"is none of {', '.join(setting.choices)}")
        return given
    kind = "a whole number" if isinstance(setting.default, int) else "a number"
    try:
        value = type(setting.default)(given)
    except ValueError:
        raise ValueError(f"is not {kind}") from None
    if not setting.least <= value <= setting.most:  # nan lies nowhere
        raise ValueError(f"is not {kind} between {setting.least:g} and {setting.most:,.10g}")
    return value


def as_env_example() -> str:
    """The table as the text of .env.example."""
    lines = ["# Every setting of Nightshift with its default. Copy to .env and change what you need."]
    for setting in TABLE:
        lines += ["", f"# {setting.help}", f"{setting.variable}={setting.default}"]
    return "\n".join(lines) + "\n"
