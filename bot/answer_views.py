"""An answer as messages: what it says, where it comes from, how sure it is, and what to press, by pure functions.

It knows nothing of clients, databases or events.
"""

from collections.abc import Sequence

from bot import blocks, safety
from bot.blocks import PIECES_A_MESSAGE, Block, Post, Pressable, button, context, section
from bot.pipeline import CHOSEN
from storage.domain import Answer, Route, Source, Style

UNKNOWN = "I don't know this yet, and I would rather say so than guess."
OUT_OF_SCOPE = (
    "I have nothing on this: no page that I can read and nothing that I was taught is about it. "
    "I answer questions about this company. If this is one, teach me."
)
FAR = 0.2
"""Cosine of a question and the best passage under which the two are about different things.

Measured with all-MiniLM-L6-v2 on the demo company's pages: under it lie 8 of 15 questions about the wide world and
none of 15 questions about the company that no page answers.
"""
UNSURE = 0.5


def answer_posts(
    answer: Answer, *, ask_a_person: str = "", private: bool = False, understood: str = ""
) -> tuple[Post, ...]:
    """An answer as messages: text, where it comes from, how sure, the taught question, what to press.

    `understood` is the question that a follow-up was completed to.
    """
    text = answer_text(answer)
    lead = (
        [section(f"The closest I was taught: {safety.bold(answer.taught_question)}")]
        if related(answer)
        else []
    )
    pieces = [section(p) for p in safety.split(safety.to_mrkdwn(text))] or [section(UNKNOWN)]
    batches = [pieces[i : i + PIECES_A_MESSAGE] for i in range(0, len(pieces), PIECES_A_MESSAGE)]
    batches[0] = lead + batches[0]
    batches[-1] = batches[-1] + foot(answer, ask_a_person, private, understood)
    notice = f"The closest I was taught: {answer.taught_question}" if related(answer) else text
    return tuple(Post(safety.inline(notice), tuple(batch)) for batch in batches)


def streamed_text(answer: Answer) -> str:
    """What a stream of an answer says, as Markdown that is still to be made harmless."""
    lead = f"The closest I was taught: {answer.taught_question}\n\n" if related(answer) else ""
    return lead + answer_text(answer)


def streamed_foot(posts: Sequence[Post]) -> tuple[Block, ...]:
    """What stands under a streamed answer: the blocks of its posts after the text."""
    shown = posts[-1].blocks
    return shown[next(i for i, b in enumerate(shown) if b["type"] != "section" or "accessory" in b) :]


def answer_text(answer: Answer) -> str:
    """What an answer says, without secrets; one of our sentences where it has nothing to say."""
    if out_of_scope(answer):
        return OUT_OF_SCOPE
    return safety.redact_secrets(safety.visible(answer.text).strip()) or UNKNOWN


def out_of_scope(answer: Answer) -> bool:
    """Whether the bot abstained and nothing it can read is anywhere near the question."""
    if answer.route is not Route.ABSTAINED:
        return False
    return not answer.suggestions and (answer.features.get("best_cosine", FAR) < FAR or not answer.sources)


def related(answer: Answer) -> bool:
    """Whether the answer belongs to a neighbouring question and must not be claimed as the answer."""
    return answer.style is Style.RELATED and bool(answer.taught_question)


def chosen(answer: Answer) -> bool:
    """Whether the asker said which taught question was meant: nothing is guessed, so nothing is said of how surely."""
    return CHOSEN in answer.features


def foot(answer: Answer, ask_a_person: str, private: bool, understood: str = "") -> list[Block]:
    """Everything under the text of an answer."""
    shown = []
    if understood:
        shown.append(context(f"Understood as: {safety.bold(understood)}"))
    if answer.taught_question and answer.route in (Route.APPROVED, Route.MEMORISED):
        shown.append(taught_line(answer))
    if answer.sources and not out_of_scope(answer):
        shown.append(context(sources_line(answer)))
    shown += suggested(answer)
    shown.append(context(provenance(answer)))
    return [*shown, blocks.actions(*to_press(answer, ask_a_person, private)), blocks.feedback(answer.id)]


def to_press(answer: Answer, ask_a_person: str, private: bool) -> list[Pressable]:
    """The buttons under an answer: teaching and asking a person where the bot is not sure, sharing, and the rest."""
    number = str(answer.id)
    unsure = answer.route is Route.ABSTAINED or (answer.confidence < UNSURE and not chosen(answer))
    buttons: list[Pressable] = []
    if answer.route is Route.ABSTAINED:
        buttons.append(button("Teach me", "teach", number, "primary"))
    if ask_a_person and unsure:
        buttons.append(button("Ask a person", "ask_person", number))
    if private:
        buttons.append(button("Share in the channel", "share", number))
    return [*buttons, overflow(answer, ask_a_person=bool(ask_a_person) and not unsure)]


def overflow(answer: Answer, *, ask_a_person: bool) -> Pressable:
    """What is rarely needed: the model version, how the answer came about, a correction without a vote."""
    options = [
        (f"details:{answer.id}", f"Model {safety.plain(answer.model_version, 60) or 'unknown'}"),
        (f"correct:{answer.id}", "Correct this answer"),
    ]
    if ask_a_person:
        options.append((f"person:{answer.id}", "Ask a person"))
    return blocks.menu("more", options)


def details(answer: Answer, question: str) -> str:
    """How an answer came about, in a few lines for whoever wants to know."""
    shown = [
        f"*{origin(answer)}*, model {safety.inline(answer.model_version, 60)}, answer {answer.id}",
        f"The question as I read it: {safety.bold(question)}",
    ]
    if chosen(answer):
        shown.append("You chose the taught question")
    elif answer.route is not Route.ABSTAINED:
        shown.append(f"I am {certainty(answer.confidence)}: {100 * answer.confidence:.0f} of 100 such are right")
    if total := answer.timings.get("total_ms"):
        shown.append(f"It took {total / 1000:.1f} s")
    return "\n".join(shown)


def taught_line(answer: Answer) -> Block:
    """The taught question that an answer belongs to, with the way to say that it was another one."""
    shown = (
        "Not quite what you asked?" if related(answer) else f"Taught: {safety.bold(answer.taught_question)}"
    )
    return section(shown, button("Not my question", "not_mine", str(answer.id)))


def suggested(answer: Answer) -> list[Block]:
    """The taught questions that may have been meant, each with a button that says so."""
    if not answer.suggestions:
        return []
    asked = [
        section(safety.bold(one.question), button("Show the answer", "meant", f"{answer.id}:{one.correction_id}"))
        for one in answer.suggestions
    ]
    return [context("Did you mean one of these? I was taught their answers."), *asked]


def sources_line(answer: Answer) -> str:
    """The pages behind an answer, or the nearest ones when there is none."""
    named = dict.fromkeys(source_link(s) for s in answer.sources[:5])
    return ("Nearest pages: " if answer.route is Route.ABSTAINED else "Sources: ") + ", ".join(named)


def source_link(source: Source) -> str:
    """A page with its heading, as a link when it is stored with an https address."""
    label = f"{source.document} > {source.heading}" if source.heading else source.document
    return safety.link(source.url, label)


def provenance(answer: Answer) -> str:
    """Where an answer comes from and how sure it is, in words."""
    if answer.route is Route.ABSTAINED or related(answer) or chosen(answer):
        return origin(answer)
    return f"{origin(answer)} · {certainty(answer.confidence)}"


def origin(answer: Answer) -> str:
    """Where an answer comes from, in words."""
    if related(answer):
        return "The answer to a neighbouring question, perhaps not to yours"
    if answer.style is Style.QUOTED:
        return "Quoted from documents"
    return {
        Route.APPROVED: "From an approved answer",
        Route.MEMORISED: "From memory",
        Route.RETRIEVED: "From documents",
        Route.ABSTAINED: "I don't know",
    }[answer.route]


def certainty(confidence: float) -> str:
    """A calibrated probability in words."""
    steps = ((0.95, "very sure"), (0.8, "fairly sure"), (UNSURE, "not very sure"))
    return next((words for least, words in steps if confidence >= least), "unsure")
