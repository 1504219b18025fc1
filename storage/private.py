"""What must not be remembered: secrets, and what belongs to one person, found in plain text by their shapes.

A secret (a key, a token, a password, a card or account number) blocks a correction and is cut out of everything else.
Personal data (e-mail addresses at private providers or outside the company, phone numbers) is masked in what people
type, unless the company itself names it. Shapes can be beaten; what they find was measured, nothing more is claimed
(`python -m tests.bench.secrets`). It knows nothing of Slack or of who reads a text.
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

REMOVED = "({} removed)"
EMAIL_MASK, PHONE_MASK = "[e-mail]", "[phone]"


# --- checks of what a shape found ---


def luhn(digits: str) -> bool:
    """Whether a number passes the check of payment cards (ISO/IEC 7812-1)."""
    doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


CARD = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}"
)
"""Number ranges and lengths of the card networks; an order number that only passes the check is no card."""


def card(text: str) -> bool:
    """Whether the digits are a payment card and not just a long number."""
    digits = re.sub(r"\D", "", text)
    return bool(CARD.fullmatch(digits)) and len(set(digits)) > 1 and luhn(digits)


def iban(text: str) -> bool:
    """Whether a bank account number passes its check (ISO 13616, modulo 97)."""
    compact = re.sub(r"\s", "", text).upper()
    moved = compact[4:] + compact[:4]
    return 15 <= len(compact) <= 34 and int("".join(str(int(c, 36)) for c in moved)) % 97 == 1


PLACEHOLDER = re.compile(
    r"[<{\[($%*#\])|]|[\w.]+\(|.*(?:\.\.\.|…|\*\*\*|xxx|removed\))|(?:your|my|some|the|example|dummy|changeme|placeholder|redacted"
    r"|pass(?:word|wd)?$|pw$|secret$"
    r"|os\.|process\.|env\.|getenv|secrets?\.|vault|config\.|settings\.|self\.|https?://|null\b|none\b|true\b|false\b)",
    re.IGNORECASE | re.DOTALL,
)
"""What stands where a value would: a variable, a blank to fill in, our own note that one was removed."""
WORDS = frozenset(
    """
    required optional hidden empty missing wrong correct incorrect invalid valid expired forgotten unknown blank none
    unchanged changed encrypted hashed stored secret private shared mandatory text string field input strong weak
    enabled disabled reset policy manager managed rotated temporary default locked masked same different safe unsafe
    never always longer shorter sensitive case-sensitive confidential personal compulsory obligatory generated unique
    """.split()  # noqa: SIM905  (a paragraph of words reads better than thirty lines)
)
"""Words that people write after `password:` when they speak about passwords."""


def telling(value: str) -> bool:
    """Whether what follows `password is` looks like a value and not like a sentence about passwords."""
    found = re.search(r"[0-9]|[^\w.,;:!?'\"()/-]", value)
    return found is not None and not PLACEHOLDER.match(value) and not re.fullmatch(r"[\d.,]{1,5}\D{0,3}", value)


def assigned(value: str) -> bool:
    """Whether the single word after `password:` is a value; a word that describes passwords is not."""
    return value.rstrip(".,!").casefold() not in WORDS and not PLACEHOLDER.match(value)


def strong(value: str) -> bool:
    """Whether a word is made as passwords are: letters and then a digit or a sign, and no path or address."""
    made = re.search(r"[A-Za-z][A-Za-z-]*[0-9!$%^&*#?+]", value)
    return made is not None and not PLACEHOLDER.match(value) and not re.search(r"[/=@:()<>]|\.\w", value)


def jumbled(value: str) -> bool:
    """Whether a word can only be a password, whatever stands beside it: signs of all kinds, changing all the time."""
    runs = re.findall(r"[a-z]+|[A-Z]+|[0-9]+|[!$%^&*#?]+", value)
    wanted = (r"[a-z]", r"[A-Z]", r"[0-9]", r"[A-Za-z0-9][!$%^&*#?][A-Za-z0-9]")
    return len(runs) >= 6 and all(re.search(w, value) for w in wanted)


def mixed(value: str) -> bool:
    """Whether a value is random rather than a word, a path or a version: letters and digits mixed, and long."""
    turns = len(re.findall(r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])", value))
    return telling(value) and (turns >= 2 or (turns == 1 and len(re.findall(r"\d", value)) >= 4))


# --- secrets ---


@dataclass(frozen=True)
class Secret:
    """One kind of secret: its name, its shape, a check of the shape's last group, and whether it is unmistakable."""

    kind: str
    shape: re.Pattern[str]
    check: Callable[[str], bool] = bool
    certain: bool = True


PASSWORD = (
    r"\b(?:pass[ -]?words?|pass[ -]?phrases?|pass[ -]?codes?|passwd|pwd|passwort|kennwort|kodewort|contrase[nñ]a|"
    r"mot de passe|wachtwoord|has[lł]o|parool|пароль)\b"
)
NAMED = r"(?:[ -](?:for|of|to|on|from|f[uü]r|von|del?|de la|du|pour)\b(?: [\w.@-]{1,40}){1,4}?)?"
KEY_NAME = (
    r"(?:[a-z0-9]{1,30}[_.-]){0,6}"
    r"(?:api[_ -]?key|secret(?:[_ -]?(?:access[_ -]?)?key)?|client[_ -]secret|(?:access|auth|bearer|refresh|bot|app)"
    r"[_ -]?token|token|(?:access|private|account|signing|encryption)[_ -]?key|credentials?)"
)

SECRETS: tuple[Secret, ...] = (
    Secret(
        "private key",
        re.compile(
            r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----(?:.*?-----END [A-Z0-9 ]{0,40}-----|.*)", re.DOTALL
        ),
    ),
    Secret("private key", re.compile(r"\b(AGE-SECRET-KEY-1[A-Z0-9]{50,})\b")),
    Secret("AWS key", re.compile(r"\b((?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16})\b")),
    Secret("Slack token", re.compile(r"\b(x(?:ox[abeoprs]|app)-[A-Za-z0-9-]{10,})")),
    Secret("Slack webhook", re.compile(r"(https://hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/]+)")),
    Secret(
        "webhook",
        re.compile(
            r"(https://(?:discord(?:app)?\.com/api/webhooks/\d{5,}/[\w-]{20,}|[\w.]{1,60}\.webhook\.office\.com/webhookb2/[\w@/-]{40,}))"
        ),
    ),
    Secret("GitHub token", re.compile(r"\b(gh[opusr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})\b")),
    Secret(
        "API key",
        re.compile(
            r"\b((?:sk|pk|rk|whsec)[-_](?:live|test|proj|ant|or|svcacct)[-_][A-Za-z0-9_-]{10,}|sk-[A-Za-z0-9]{20,}"
            r"|whsec_[A-Za-z0-9+/=]{20,}|AIza[0-9A-Za-z_-]{35}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}"
            r"|gl(?:pat|dt|rt|cbt)-[A-Za-z0-9_-]{20,}|npm_[A-Za-z0-9]{36}|pypi-AgE[A-Za-z0-9_-]{50,}"
            r"|SG\.[\w-]{16,32}\.[\w-]{32,64}|hf_[A-Za-z]{30,}|do[opr]_v1_[a-f0-9]{64}|dapi[a-f0-9]{32}"
            r"|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}|sq0[a-z]{3}-[\w-]{22,}|EAAA[\w-]{40,}|ATATT3[\w=-]{40,}|lin_api_[A-Za-z0-9]{32,}"
            r"|SK[0-9a-f]{32}|key-[0-9a-f]{32}|NRAK-[A-Z0-9]{27}|hvs\.[\w-]{24,}|dp\.pt\.[A-Za-z0-9]{40,}|r8_[A-Za-z0-9]{37}"
            r"|pat[A-Za-z0-9]{14}\.[a-f0-9]{64}|secret_[A-Za-z0-9]{43}|ntn_[A-Za-z0-9]{40,}|figd_[\w-]{40,}|PMAK-[a-f0-9-]{50,})"
            r"(?![\w-])"
        ),
    ),
    Secret(
        "bot token",
        re.compile(r"(?<![\d:])(\d{8,10}:AA[\w-]{32,36}|[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,40})(?![\w-])"),
    ),
    Secret(
        "JSON web token",
        re.compile(r"\b(eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,})"),
        certain=False,
    ),
    Secret(
        "password in a link",
        re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{0,100}:([^\s/:@<{$*\[]{1}[^\s/@]{0,100})@"),
        assigned,
    ),
    Secret("one-time secret", re.compile(r"otpauth://[^\s]{1,200}?[?&]secret=([A-Z2-7]{8,})", re.IGNORECASE)),
    Secret("shared key", re.compile(r"\b(?:AccountKey|SharedAccessKey|sig)=([A-Za-z0-9+/%]{30,}={0,2})")),
    Secret(
        "password",
        re.compile(
            rf"(?i){PASSWORD}[\"'`]?{NAMED}\s{{0,3}}(?:[:=]|=>|->|\bis\b|\blautet\b|\bist\b|\best\b|\bes\b|\bon\b|\?)\s{{0,3}}"
            r"(?:now |set to |still |always )?[\"'`“]?([^\s\"'`,;”]{4,})"
        ),
        telling,
        certain=False,
    ),
    Secret(
        "password",
        re.compile(rf"(?im){PASSWORD}[\"'`]?{NAMED}\s{{0,3}}[:=]\s{{0,3}}[\"'`“]?([^\s\"'`,;”]{{5,}})[\"'`”.!]?\s*$"),
        assigned,
        certain=False,
    ),
    Secret(
        "password",
        re.compile(r"(?i)(?:password|passwd|pwd|passphrase)=[\"'`]?([^\s\"'`,;&<>)]{4,})"),
        assigned,
        certain=False,
    ),
    Secret(
        "password",
        re.compile(
            r"(?i)\b(?:pw|pass|login|credentials?|creds?|logins?|zugangsdaten)\b\s{0,2}(?:[:=]|\bis\b|\bare\b)\s{0,2}"
            r"(?:[\w.@+-]{2,60}\s?(?:/|:|\||,| and )\s?)?[\"'`]?([^\s\"'`,;]{6,})"
        ),
        strong,
        certain=False,
    ),
    Secret("password", re.compile(rf"(?i){PASSWORD} [\"'`“]?([^\s\"'`,;”]{{8,}})"), jumbled, certain=False),
    Secret("password", re.compile(r"(?i)password\"?\s{0,2}value=[\"']([^\"']{6,})"), assigned, certain=False),
    Secret(
        "password",
        re.compile(r"(?i)\b(?:use|enter|type)\s[\"'`“]?([^\s\"'`,;”]{6,})[\"'`”]? as (?:the|your|its|a|my) pass"),
        strong,
        certain=False,
    ),
    Secret(
        "password",
        re.compile(r"(?i)\b(?:wi-?fi|wlan)\b[^\n:>=]{0,30}(?::|->|=>|=)\s{0,2}([^\s\"'`,;]{8,})"),
        strong,
        certain=False,
    ),
    Secret("password", re.compile(r"(?:\bsshpass -p|\bredis-cli\b[^\n]{0,40}? -a) ?[\"']?([^\s\"']{6,})"), assigned),
    Secret(
        "password",
        re.compile(r"(?:^|(?<=[\s\"'`(]))([A-Za-z0-9!$%^&*#?_-]{9,32})(?=[\s\"'`),.;]|$)", re.MULTILINE),
        jumbled,
        certain=False,
    ),
    Secret(
        "password",
        re.compile(r"(?i)(?:^|\s)(?:-u|--user|--userpwd)[ =]['\"]?[\w.@-]{1,60}:([^\s'\"$<{]{4,})"),
        assigned,
        certain=False,
    ),
    Secret(
        "password",
        re.compile(r"(?:\bmysql|\bmysqldump|\bmariadb)\b[^\n]{0,80}?\s-p([^\s'\"-][^\s]{3,})"),
        assigned,
        certain=False,
    ),
    Secret(
        "password", re.compile(r"\b(?:PGPASSWORD|MYSQL_PWD|SSHPASS|REDISCLI_AUTH)=[\"']?([^\s\"'$<{]{4,})"), assigned
    ),
    Secret("password", re.compile(r"(?i)\bAuthorization: Basic ([A-Za-z0-9+/]{12,}={0,2})"), assigned),
    Secret(
        "token",
        re.compile(rf"(?i)\b{KEY_NAME}\b[\"'`]?\s{{0,3}}(?:[:=]|=>|\bis\b)\s{{0,3}}[\"'`]?([A-Za-z0-9+/_.~=-]{{12,}})"),
        mixed,
        certain=False,
    ),
    Secret("token", re.compile(rf"(?i)\b{KEY_NAME}[\"'`]?\s([A-Za-z0-9+/_=-]{{24,}})"), mixed, certain=False),
    Secret("token", re.compile(r"(?i)\bapi-schl(?:ü|ue)ssel (?:ist|lautet) ([A-Za-z0-9+/_.~=-]{12,})"), mixed),
    Secret("token", re.compile(r"(?i)\bbearer\s([A-Za-z0-9+/_.~=-]{16,})"), mixed),
    Secret("payment card", re.compile(r"(?<![\w.-])(\d(?:[ -]?\d){12,18})(?![\w-])"), card),
    Secret("bank account", re.compile(r"\b([A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?)\b"), iban),
)
"""Written down from the issuers' public formats and from how people pass passwords on."""


def find_secrets(text: str) -> list[str]:
    """The kinds of secrets in a text, each once, in the table's order; empty when none is recognised."""
    kinds = [s.kind for s in SECRETS if any(s.check(m[m.lastindex or 0]) for m in s.shape.finditer(text))]
    return list(dict.fromkeys(kinds))


def redact_secrets(text: str, *, certain: bool = False) -> str:
    """The text with every recognised secret (with `certain`, only unmistakable ones) replaced by its kind."""
    for secret in SECRETS:
        if certain and not secret.certain:
            continue

        def named(match: re.Match[str], secret: Secret = secret) -> str:
            last = match.lastindex or 0
            if not secret.check(match[last]):
                return match[0]
            start, end = match.start(last) - match.start(), match.end(last) - match.start()
            return match[0][:start] + REMOVED.format(secret.kind) + match[0][end:]

        text = secret.shape.sub(named, text)
    return text


# --- personal data ---

PRIVATE_MAIL = re.compile(
    r"(?:gmail|googlemail|outlook|hotmail|live|msn|yahoo|ymail|rocketmail|icloud|me|mac|aol|gmx|web|t-online|freenet"
    r"|proton|protonmail|pm|tutanota|tuta|posteo|mailbox|fastmail|zoho|hey|mail|inbox|yandex|qq|163|126|naver|daum|orange"
    r"|wanadoo|free|laposte|libero|virgilio|bluewin|seznam|wp|o2|onet|interia|rediffmail|btinternet|comcast|verizon|att"
    r"|sbcglobal|cox|shaw|bigpond|telia|hot|delfi|uol|terra|bol)"
    r"\.(?:com|net|org|me|de|at|ch|fr|it|es|pt|nl|be|pl|cz|ee|lv|lt|se|dk|fi|no|ru|cn|jp|in|br|uk|ie|au|ca|us|eu)"
    r"(?:\.[a-z]{2})?|(?:yahoo|hotmail|live|outlook)\.(?:com?|net)\.[a-z]{2}",
    re.IGNORECASE,
)
"""Mail providers of private people; an address there is a person's, whatever company it is written in."""
EMAIL = re.compile(r"(?<![\w.+=/-])[\w.+'=-]{1,64}@((?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24})\b(?!:)")
PHONE = re.compile(
    r"(?<![\w.:/=+-])(?:(?:\+[1-9]\d{0,2}[ ()./-]{0,2}|00[1-9]\d{0,2}[ ()./-]{1,2})\d[\d ()./-]{4,16}\d"
    r"|\(?0\d{2,4}\)?[ /-]\d{3,4}[ -]?\d{2,5}"
    r"|\(\d{3}\) ?\d{3}-\d{4}|[2-9]\d{2}-\d{3}-\d{4})(?![\w-]|\.\d|[=/]\w)"
)


@dataclass(frozen=True)
class Found:
    """An e-mail address or a phone number in a text, and the mask that replaces it."""

    text: str
    mask: str


def find_personal(text: str, contacts: Collection[str] = ()) -> list[Found]:
    """What of a text belongs to one person; `contacts` are the domains, addresses and numbers of the company.

    With domains given, every address elsewhere is personal; without, those at private mail providers.
    """
    return [f for f in possible(text) if not is_the_companys(f.text, contacts)]


def possible(text: str) -> Iterator[Found]:
    """Every address and every phone number."""
    for found in EMAIL.finditer(text):
        yield Found(found[0], EMAIL_MASK)
    for found in PHONE.finditer(EMAIL.sub(" ", text)):
        if 7 <= sum(c.isdigit() for c in found[0]) <= 15:
            yield Found(found[0], PHONE_MASK)


def is_the_companys(item: str, contacts: Collection[str]) -> bool:
    """Whether an address or a number is named by the company, or an address is of no private provider."""
    if "@" not in item:
        number = re.sub(r"\D", "", item)
        return any(digits and number.startswith(digits) for c in contacts if (digits := as_number(c)))
    address = item.casefold()
    host = address.rpartition("@")[2]
    named = [c.casefold().lstrip("@") for c in contacts if not as_number(c)]
    if any(c in (address, host) or host.endswith("." + c) for c in named):
        return True
    return not any("@" not in c for c in named) and not PRIVATE_MAIL.fullmatch(host)


def as_number(contact: str) -> str:
    """The digits of a contact that is a phone number or the beginning of one; empty for domains and addresses."""
    return re.sub(r"\D", "", contact) if re.fullmatch(r"\+?[\d ()/.-]{2,}", contact) else ""


def mask_personal(text: str, contacts: Collection[str] = (), public: Callable[[str], bool] = lambda _: False) -> str:
    """The text with personal data masked, but for what `public` says everybody may read anyway."""
    for found in sorted(set(find_personal(text, contacts)), key=lambda f: -len(f.text)):
        if not public(found.text):
            text = text.replace(found.text, found.mask)
    return text


def kept(text: str, contacts: Collection[str] = (), public: Callable[[str], bool] = lambda _: False) -> str:
    """What may be stored of a text that somebody typed: without secrets, personal data masked."""
    return mask_personal(redact_secrets(text), contacts, public)
