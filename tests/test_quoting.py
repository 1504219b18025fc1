"""A passage falls into sentences that can be quoted, a question says what it wants, and the quote is word for word."""

import pytest

from bot import cues, quoting
from bot.quoting import best_quote
from bot.sentences import sentences
from retrieval.retriever import Hit
from storage.domain import Passage
from tests.bench.exact import WordHashes

EMBEDDER = WordHashes()


def hit(text: str, number: int = 1, heading: str = "Rules", cosine: float = 0.5) -> Hit:
    return Hit(Passage(number, number, "Leave", heading, text, "https://x.example", "workspace"), cosine, 3.0, 0.5)


def quote(question: str, *hits: Hit) -> str:
    found = best_quote(question, EMBEDDER.encode([question])[0], hits, EMBEDDER)
    assert found is not None
    return found.text


def texts(passage: str) -> list[str]:
    return [sentence.text for sentence in sentences(passage)]


def test_wrapped_lines_are_one_sentence_and_short_ones_are_not() -> None:
    assert texts("Everyone who works in the office for a year has\n26 days, e.g. here. Ask Ana!\nLast") == [
        "Everyone who works in the office for a year has 26 days, e.g. here.",
        "Ask Ana!",
        "Last",
    ]
    assert texts("Lisbon\nTallinn") == ["Lisbon", "Tallinn"]


@pytest.mark.parametrize(
    "lines",
    [
        ["pip install --upgrade lumen-agent", "systemctl restart lumen-agent", "journalctl -u lumen-agent"],
        ["Run these on the host in this order, as the deployment user", "systemctl restart agent", "ls -l", "reboot"],
        ["kubectl -n auth rollout restart deploy/auth && kubectl get pods", "export LP__LOG_LEVEL=debug,http=trace"],
        ["cp -r . $HOME/backup", 'git commit -m "fix the bug"', "./deploy.sh staging", "$ terraform plan"],
        ["docker run \\\n  --name agent \\\n  lumen/agent:latest", "docker ps"],
        ["payroll@lumenpay.example", "travel+urgent@lumenpay.example", "it-help@lumenpay.example"],
        ["pay.roll_lisbon@lumenpay.example,", "data_protection.office.of.europe@eu.lumenpay.example,", "a@b.example"],
        ["https://status.lumenpay.example/eu-west-1?view=all&range=24h", "https://x.example", "vpn.lumenpay.example"],
        ["payroll: pay@lumenpay.example", "travel: trip@lumenpay.example"],
        ["Everybody can see there how our systems have been doing.", "https://status.lumenpay.example"],
        ["vpn client", "laptop", "badge"],
    ],
)
def test_commands_and_addresses_on_lines_of_their_own_stay_there(lines: list[str]) -> None:
    assert texts("\n".join(lines)) == lines


@pytest.mark.parametrize(
    "wrapped",
    [
        "Ask the travel desk\nbefore you book.",
        "Employees may carry over\nfive days of leave until\nMarch of the next year.",
        "See\nthe emergency guide (https://docs.example/d/11tUnOegbHajqXPwSFxGtmGakupY).",
        "Will this travel be a detail to another\nlocation?",
        "Write to\ntravel@lumenpay.example\nif the flight is missed.",
        "Submit the request in the tool for new colleagues\nhttps://tool.lumenpay.example/new?team=infra\nby Friday.",
        "Put the new idempotency window of your shop into the file\npayflow.yml.",
        "Mail the whole team by adding tts@lumenpay.example,\nopp@lumenpay.example,\nor hr@lumenpay.example.",
        "Everyone uses git at Lumenpay, and whoever reviews\ngit history should know that it is rewritten.",
        "- See info on security\nanalysis",
        "Front desk\n+372 555 0101",
    ],
)
def test_wrapped_prose_is_joined_as_before(wrapped: str) -> None:
    assert texts(wrapped) == [" ".join(wrapped.split("\n"))]


def test_list_items_know_the_line_that_introduces_them() -> None:
    found = sentences("You need:\n- a badge:\n  - with a photo\n- a PIN\n\nAsk the desk.")
    assert [(s.text, s.lead) for s in found] == [
        ("You need:", ""),
        ("- a badge:", "You need:"),
        ("- with a photo", "- a badge:"),
        ("- a PIN", "You need:"),
        ("Ask the desk.", ""),
    ]
    assert found[3].introduced == "You need: a PIN"


def test_a_table_row_carries_the_names_of_its_columns() -> None:
    assert texts("| Level | Updates |\n| SEV1 | every 20 minutes |\n| SEV2 | |\n| All | `a \\| b` |") == [
        "Level: SEV1 · Updates: every 20 minutes",
        "Level: SEV2",
        "Level: All · Updates: `a \\| b`",
    ]


def test_code_stays_whole_and_addresses_do_not_count() -> None:
    code = "```sh\nrm -r a\n\nls\n```"
    assert texts(f"Run this:\n\n{code}\n\nDone.") == ["Run this:", code, "Done."]
    assert sentences("See the form (https://x.example/2024/7).")[0].bare == "See the form."
    assert sentences("Ask there (#people-ops).")[0].bare == "Ask there (#people-ops)."


def test_only_a_fence_as_long_as_the_first_ends_code() -> None:
    code = "````md\n```\nls -a\nls -b\n```\n````"
    assert texts(f"{code}\nDone.") == [code, "Done."]


@pytest.mark.parametrize(
    ("question", "answer", "kind"),
    [
        ("how many days of leave do I have", "Everyone has 26 days.", "amount"),
        ("How long is probation?", "It lasts four months.", "duration"),
        ("when are wages paid", "Once a month, on the 25th.", "moment"),
        ("who approves a training", "Your manager does.", "person"),
        ("what's the travel desk's email", "Write to travel@lumenpay.example.", "contact"),
        ("where do I book a room", "Use https://nook.lumenpay.example.", "place"),
        ("PF-1205 fix?", "Set `idempotency_window: 48h`.", "remedy"),
        ("how do I order a monitor", "Order it in Depot.", "howto"),
    ],
)
def test_a_question_asks_for_what_its_answer_tells(question: str, answer: str, kind: str) -> None:
    assert kind in cues.asked(question)
    assert kind in cues.told(answer)
    assert kind not in cues.told("It is so.")


def test_the_sentence_that_answers_is_quoted_rather_than_the_one_that_repeats_the_question() -> None:
    text = (
        "Orders are charged twice when a shop retries late. PayFlow forgets its keys early. Weather is nice. "
        "Set `idempotency_window: 48h` in the shop's config."
    )
    assert "idempotency_window: 48h" in quote("orders are charged twice, how to fix", hit(text))


def test_a_quote_is_at_most_two_sentences_in_the_order_of_the_page() -> None:
    filler = " ".join(f"Filler {n} stands here." for n in range(20))
    text = f"Leave is 26 days. {filler} Leave expires on 31 March."
    said = quote("when does leave expire", hit(text))
    assert len(said.split("\n")) <= 2
    assert said.index("Leave") < said.index("expires on 31 March")


def test_what_mends_another_error_is_not_quoted() -> None:
    other = hit("Set the lifetime to 900 and restart the service.", 1, "AF-3001: Sessions end early", 0.9)
    own = hit("Clear the caches once.", 2, "AF-2046: Accounts get 401", 0.4)
    assert quote("How do I fix AF-2046, restart the service?", other, own) == "Clear the caches once."
    assert "lifetime" in quote("How do I fix the service, restart it?", other, own)
    of_no_error = hit(other.passage.text, 3, "Restarting")
    assert "lifetime" in quote("How do I fix AF-9999, restart the service?", of_no_error, own)
    twin = hit(other.passage.text, 4, "AF-2046: Sessions too", 0.2)
    assert quote("How do I fix AF-2046, restart the service?", other, twin) == other.passage.text
    nothing = best_quote("AF-9999?", EMBEDDER.encode(["AF-9999?"])[0], [other, own], EMBEDDER)
    assert nothing is None


def test_both_pages_are_named_when_the_sentences_come_from_two() -> None:
    question = "who is asked about leave"
    found = best_quote(
        question,
        EMBEDDER.encode([question])[0],
        [hit("Ana is asked about leave.", 1), hit("Bo is asked about leave.", 2), hit("Rain.", 3, cosine=0.0)],
        EMBEDDER,
    )
    assert found is not None
    assert [passage.id for passage in found.passages] == [1, 2]


def test_nothing_is_quoted_from_nothing() -> None:
    assert best_quote("why", EMBEDDER.encode(["why"])[0], [], EMBEDDER) is None
    assert best_quote("why", EMBEDDER.encode(["why"])[0], [hit("...")], EMBEDDER) is None


def test_every_weight_is_of_a_feature_and_every_feature_has_a_weight() -> None:
    rows = quoting.described("why", EMBEDDER.encode(["why"])[0], quoting.candidates("why", [hit("Because.")]), EMBEDDER)
    assert rows[0].keys() == quoting.WEIGHTS.keys()


def test_sureness_is_between_the_best_and_all_others() -> None:
    question = "how many days of leave"
    found = best_quote(question, EMBEDDER.encode([question])[0], [hit("Leave is 26 days. Rain.")], EMBEDDER)
    assert found is not None
    assert 0.0 < found.features["sentence_share"] < found.features["pair_share"] <= 1.0
