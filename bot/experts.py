"""Whom to ask when the bot does not know: a person by topic, by channel, or for everything.

ASK_A_PERSON holds `default=U1,C0HELP=U2,topic:payroll=U3`; a bare id is the default. A person whom an admin named in
the settings of a channel goes before the table's person for it. It knows nothing of how people are asked.
"""

import re
from dataclasses import dataclass, field

from bot import channels
from bot.delivery import Parts
from storage.domain import Question
from storage.errors import UserError

ID = re.compile(r"[UWC][A-Z0-9]{2,20}")
CHANNEL = re.compile(r"[CDG][A-Z0-9]{2,20}")


@dataclass(frozen=True)
class Experts:
    """Whom to ask: Slack ids of people, or of channels in which to ask."""

    default: str = ""
    channels: dict[str, str] = field(default_factory=dict)
    topics: dict[str, str] = field(default_factory=dict)

    def by_topic(self, question: str) -> str:
        """The person of the longest topic that a question names; empty when it names none."""
        text = f" {' '.join(re.findall(r'[a-z0-9]+', question.lower()))} "
        named = [t for t in self.topics if f" {' '.join(re.findall(r'[a-z0-9]+', t))} " in text]
        return self.topics[max(named, key=len)] if named else ""


def read(table: str) -> Experts:
    """The experts of a setting. Raises UserError that names every entry which cannot be read."""
    default, by_channel, by_topic, wrong = "", dict[str, str](), dict[str, str](), list[str]()
    for entry in (part.strip() for part in table.split(",") if part.strip()):
        key, _, person = entry.rpartition("=")
        key, person = key.strip(), person.strip()
        topic = key.removeprefix("topic:").strip().lower() if key.startswith("topic:") else ""
        if not ID.fullmatch(person) or not (topic or key in ("", "default") or CHANNEL.fullmatch(key)):
            wrong.append(entry)
        elif topic:
            by_topic[topic] = person
        elif key in ("", "default"):
            default = person
        else:
            by_channel[key] = person
    if wrong:
        raise UserError(
            f"NIGHTSHIFT_ASK_A_PERSON cannot be read at {'; '.join(wrong)}: "
            "write default=U1, CHANNEL_ID=U2 or topic:payroll=U3, with commas between."
        )
    return Experts(default, by_channel, by_topic)


async def expert_for(parts: Parts, question: Question) -> str:
    """Whom to ask this question where it was asked; empty when nobody is named."""
    experts = read(parts.settings.text("ASK_A_PERSON"))
    here = (await channels.of(parts, question.channel)).person
    return experts.by_topic(question.text) or here or experts.channels.get(question.channel) or experts.default
