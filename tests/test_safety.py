"""Nothing that others wrote may ping, link, break a message apart or carry a secret out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import safety
from storage import private

NASTY = st.text(
    st.sampled_from("<>&|*`_~!@#\n\t -.;/:\\\u202e\u0000\ud800aé€😀") | st.characters(), max_size=400
)
FENCED = st.lists(st.sampled_from(["```", "``", "`", "\n", " ", "word", "&amp;", "&lt;"]), max_size=60).map(
    "".join
)


@given(NASTY)
def test_escaped_text_has_no_markup_and_reads_the_same(text: str) -> None:
    escaped = safety.escape(text)
    assert not set(escaped) & set("<>")
    assert escaped.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == safety.visible(text)
    escaped.encode()


@given(NASTY, st.integers(10, 200))
def test_clipping_never_exceeds_the_limit_or_splits_an_entity(text: str, limit: int) -> None:
    for cut in (safety.clip(text, limit), safety.inline(text, limit)):
        assert len(cut) <= limit
        whole = cut.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
        assert "&" not in whole


@given(NASTY | FENCED, st.integers(20, 120))
def test_splitting_loses_nothing(text: str, limit: int) -> None:
    escaped = safety.escape(text)
    pieces = safety.split(escaped, limit)
    assert all(len(p) <= limit + 8 for p in pieces)
    bare = [c for c in escaped if not c.isspace() and c != "`"]
    assert [c for p in pieces for c in p if not c.isspace() and c != "`"] == bare


def test_a_long_code_block_is_closed_and_opened_again() -> None:
    pieces = safety.split("```\n" + "one line of code\n" * 20 + "```", 100)
    assert len(pieces) > 3
    assert all(p.startswith("```") and p.rstrip().endswith("```") for p in pieces)


@given(NASTY)
def test_markdown_becomes_mrkdwn_without_markup(text: str) -> None:
    assert not set(safety.to_mrkdwn(text)) & set("<>")


def test_markdown_is_converted() -> None:
    told = safety.to_mrkdwn("## Leave\n**28 days** for all\n- one\n* two\n[page](https://x.example) `a*b`")
    assert told == "*Leave*\n*28 days* for all\n• one\n• two\npage (https://x.example) `a*b`"


def test_code_is_left_alone() -> None:
    assert safety.to_mrkdwn("```\n# no heading\n- <b>\n```") == "```\n# no heading\n- &lt;b&gt;\n```"


@pytest.mark.parametrize(
    ("url", "linked"),
    [
        ("https://wiki.example/a?b=1&c=2", True),
        ("http://wiki.example/a", False),
        ("javascript:alert(1)", False),
        ("https://", False),
        ("https://good.example@evil.example/", False),
        ("https://[broken", False),
        ("https://x.example/a b", False),
        ("https://x.example/\u202egpj", False),
        ("", False),
    ],
)
def test_only_plain_https_becomes_a_link(url: str, linked: bool) -> None:
    assert safety.link(url, "Leave").startswith("<https://") is linked


@given(NASTY, NASTY)
def test_a_link_cannot_be_broken_out_of(url: str, label: str) -> None:
    built = safety.link("https://x.example/" + url, label)
    inside = built[1:-1] if built.startswith("<") else built
    assert not set(inside) & set("<>\n")
    assert inside.count("|") <= 1 or not built.startswith("<")


def test_mentions_are_built_from_ids_only() -> None:
    assert safety.person("U0SAM") == "<@U0SAM>"
    assert safety.person("C0HELP") == "<#C0HELP>"
    assert safety.person("!channel") == "!channel"
    assert safety.person("<!here>") == "&lt;!here&gt;"


def test_what_a_person_typed_is_read_as_words() -> None:
    typed = "<@U0BOT> ask <@U0SAM|sam> in <#C0|help> &lt;now&gt; <!here> &amp;amp;"
    assert safety.from_slack(typed, "U0BOT") == "ask sam in help <now> @here &amp;"
    assert safety.from_slack("see <https://x.example/a>") == "see https://x.example/a"
    assert safety.mentions("<@U0BOT> and <@U0SAM|sam> and &lt;@U0NO&gt;") == ("U0BOT", "U0SAM")


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("Fill in <https://forms.example/abc|this form> by Friday", "this form (https://forms.example/abc)"),
        ("<https://x.example/?to=https://y.example&amp;n=1|here>", "here (https://x.example/?to=https://y.example&n=1)"),
        ("write to <mailto:ann@x.example|Ann>", "Ann (ann@x.example)"),
        ("<http://x.example/|x.example> is down", "x.example is down"),
        ("<https://x.example|https://x.example/>", "https://x.example/"),
        ("write to <mailto:ann@x.example|ann@x.example>", "write to ann@x.example"),
        ("in <#C0HELP|help>, says <@U0SAM|sam>", "in help, says sam"),
    ],
)
def test_a_link_that_a_person_typed_keeps_its_address(typed: str, read: str) -> None:
    assert read in safety.from_slack(typed)
    assert safety.from_slack(typed).count("x.example") == read.count("x.example")


SECRET_TEXTS = [
    ("AWS key", "use AKIA" + "IOSFODNN7EXAMPLE please"),
    ("private key", "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"),
    ("Slack token", "token xoxb-" + "123456789012-abcdef"),
    ("Slack token", "xapp-" + "1-A0NIGHT-123456789"),
    ("GitHub token", "ghp_" + "a" * 36),
    ("API key", "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc"),
    ("JSON web token", "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0." + "abcDEF123_-xyz"),
    ("password", "the wifi password is Blue-Horse-7!"),
    ("password", "PASSWORD: hunter2"),
    ("password", "db_url?user=a&password=correcthorse"),
    ("password in a link", "postgres://admin:s3cr3t@db.internal/prod"),
    ("token", "api_key = 9f8e7d6c5b4a39281706"),
    ("token", "PAYFLOW_SECRET_KEY: abcdef0123456789"),
    ("token", "Authorization: Bearer abcdef0123456789"),
    ("payment card", "card 4111 1111 1111 1111"),
    ("bank account", "IBAN DE89 3704 0044 0532 0130 00"),
]
HARMLESS = [
    "How do I reset my password?",
    "Your password is required at every start.",
    "Password: use a passkey instead",
    "The token is refreshed every hour by the gateway.",
    "Error AF-401: the session token expired, so sign in again.",
    "Ticket 4111 1111 1111 1112 is closed.",
    "Build 20261120093015 is live.",
    "Call extension 1234 or book room 0123.",
    "Invoice DE12 3456 7890 has two pages.",
    "See https://handbook.example/secrets#token-rotation",
    "API keys live in the vault, never in chat.",
]


@pytest.mark.parametrize(("kind", "text"), SECRET_TEXTS)
def test_secrets_are_found_and_removed(kind: str, text: str) -> None:
    assert kind in safety.find_secrets(text)
    assert safety.find_secrets(safety.redact_secrets(text)) == []


@pytest.mark.parametrize("text", HARMLESS)
def test_ordinary_sentences_hold_no_secret(text: str) -> None:
    assert safety.find_secrets(text) == []
    assert safety.redact_secrets(text) == text


@given(NASTY)
def test_redacting_is_idempotent(text: str) -> None:
    once = safety.redact_secrets(text)
    assert safety.redact_secrets(once) == once


def test_personal_data_is_masked() -> None:
    text = "Write to ann@lumen.example or bob@gmail.com, call +49 30 1234567 or (030) 123 4567. Code 12345."
    assert private.mask_personal(text, ["lumen.example"]) == (
        "Write to ann@lumen.example or [e-mail], call [phone] or [phone]. Code 12345."
    )
