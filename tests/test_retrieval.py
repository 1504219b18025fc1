"""Retrieval with real SQLite and a real, small Chroma; only the embedder is a fake: a hashed bag of words."""

import json
import logging
import re
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bot.sentences import sentences
from retrieval import chunker, lexical, loaders
from retrieval.chunker import LIMIT
from retrieval.embedder import Embedder
from retrieval.index import VectorIndex
from retrieval.ingest import Failure, IngestResult, fingerprint, ingest
from retrieval.loaders import LoadedDocument, Section
from retrieval.retriever import NOTES_CHARS, Retriever, fuse
from retrieval.taught import TaughtQuestions
from storage import corrections, documents
from storage.database import Database
from storage.documents import NewDocument, NewPassage
from storage.errors import NotFoundError, UserError

PRIVATE = "C0PRIVATE"
Run = Callable[..., tuple[dict[str, Any], str]]


class WordHashes:
    """Each word is a coordinate; texts are near when they share words."""

    def __init__(self, name: str = "hashes", dimension: int = 64) -> None:
        self.name = name
        self.dimension = dimension
        self.encoded = 0

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.encoded += len(texts)
        rows = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[0] = 0.01
            for word in re.findall(r"\w+", text.lower()):
                row[1 + zlib.crc32(word.encode()) % (self.dimension - 1)] += 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return words(texts)


class Backwards(WordHashes):
    """The same with its coordinates turned round, as unlike as another model."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().encode(texts)[:, ::-1]


def words(texts: Sequence[str]) -> list[int]:
    return [len(re.findall(r"\w+|[^\w\s]", text)) for text in texts]


@pytest.fixture
def database(home: Path) -> Database:
    return Database(home)


@pytest.fixture
def embedder() -> WordHashes:
    return WordHashes()


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "leave.md").write_text("# Leave\n\nEveryone has 28 days.\n\n## Carry over\n\nFive days move on.\n")
    (folder / "travel.md").write_text("---\ntitle: Travel\nurl: https://in.example/t\n---\nBook trains early.\n")
    (folder / "phones.txt").write_text("Every engineer gets a phone from the equipment desk.")
    return folder


@pytest.fixture
def index(home: Path, database: Database) -> Iterator[VectorIndex]:
    opened = VectorIndex(home, database)
    yield opened
    opened.close()


def markdown(tmp_path: Path, text: str) -> LoadedDocument:
    file = tmp_path / "some-page.md"
    file.write_text(text, encoding="utf-8")
    return loaders.load(file)


# Loaders


def test_headings_form_a_path_and_front_matter_names_the_page(tmp_path: Path) -> None:
    loaded = markdown(
        tmp_path,
        '---\ntitle: "Time off: all of it"\nurl: https://in.example/leave\ntags:\n  - x\n---\nIntro.\n\n'
        "## Leave {#leave}\nFirst.\n### Carry `over` ##\nSecond.\n## Sick\nThird.\n",
    )
    assert (loaded.title, loaded.url) == ("Time off: all of it", "https://in.example/leave")
    assert [(s.heading, s.text) for s in loaded.sections] == [
        ("", "Intro."),
        ("Leave", "First."),
        ("Leave > Carry over", "Second."),
        ("Sick", "Third."),
    ]


def test_the_first_top_heading_is_the_title_and_underlined_headings_count(tmp_path: Path) -> None:
    loaded = markdown(tmp_path, "Time off\n========\n\nIntro.\n\nCarry over\n----------\n\nFive days.\n\n---\n\nEnd.\n")
    assert loaded.title == "Time off"
    assert [(s.heading, s.text) for s in loaded.sections] == [
        ("", "Intro."),
        ("Carry over", "Five days.\n\nEnd."),
    ]


def test_a_page_without_any_title_is_named_after_its_file(tmp_path: Path) -> None:
    assert markdown(tmp_path, "Words.").title == "Some page"


def test_shortcodes_and_comments_go_and_their_words_stay(tmp_path: Path) -> None:
    loaded = markdown(
        tmp_path,
        'Ask in {% slack_channel "people-ops" %} or see [the form]({% page "/forms/#eft" %}).\n'
        '{% alert "Note" %}\nKeep this.\n{% endalert %}\n<!-- not\nthis -->{{ site.url }}'
        "{% comment %}nor this{% endcomment %}\n",
    )
    assert loaded.sections[0].text == "Ask in #people-ops or see the form (/forms/#eft).\n\nKeep this."


def test_code_survives_to_the_character(tmp_path: Path) -> None:
    code = "```sh\n# no heading\nrm *old* <file> && echo '{{.State}}' _x_\n```"
    loaded = markdown(tmp_path, f"## Clean up\n\nRun `a <b> *c* __d__`:\n\n{code}\n\n## Next\n\nDone.\n")
    assert [s.heading for s in loaded.sections] == ["Clean up", "Next"]
    assert loaded.sections[0].text == f"Run `a <b> *c* __d__`:\n\n{code}"


def test_code_that_is_only_indented_survives_and_shortcodes_within_code_stay(tmp_path: Path) -> None:
    loaded = markdown(
        tmp_path,
        "Run:\n\n    rm *tmp* _x_\n\n    # done\n\nThen `{% if x %}`:\n\n"
        "```\n{% raw %}{% for a in b %}{% endraw %}\n```\n\n- An item\n\n    of *two* paragraphs\n",
    )
    assert loaded.sections[0].text == (
        "Run:\n\n```\nrm *tmp* _x_\n\n# done\n```\n\nThen `{% if x %}`:\n\n"
        "```\n{% for a in b %}\n```\n\n- An item\n\n    of two paragraphs"
    )


@pytest.mark.parametrize(
    ("indented", "seen"),
    [
        ("Text\n    of *one* paragraph", "Text\n    of one paragraph"),
        ("Text\n\n    - an *item*", "Text\n\n    - an item"),
        ("<div>\n\n    <b>x</b> *y*\n\n</div>", "x y"),
        ("Text <!--\n\n    not *this* -->\n\nand *more*", "Text \n\nand more"),
    ],
)
def test_what_is_indented_but_no_code_is_read_as_before(tmp_path: Path, indented: str, seen: str) -> None:
    text = markdown(tmp_path, indented).sections[0].text
    assert [line.rstrip() for line in text.strip().split("\n")] == [line.rstrip() for line in seen.split("\n")]


def test_marks_that_a_page_spells_out_stand_for_nothing(tmp_path: Path) -> None:
    assert markdown(tmp_path, "Ask &#xe000;7&#xe001;Ana.").sections[0].text == "Ask Ana."
    loaded = html("<p>Run</p><pre>ls &#xe000;0&#xe001;</pre>")
    assert loaded.sections[0].text == "Run\n\n```\nls 0\n```"


def test_links_keep_words_and_address_to_the_character(tmp_path: Path) -> None:
    loaded = markdown(
        tmp_path,
        "See [the **form**](https://x.example/a_b_(c)?q=1&copy=2_3_), <https://y.example/*z*>, [ref][r], "
        "[below](#here), [me](mailto:me@x.example), ![a chart](c.png) and [https://z.example](https://z.example).\n\n"
        "[r]: https://r.example/_r_\n",
    )
    assert loaded.sections[0].text == (
        "See the form (https://x.example/a_b_(c)?q=1&copy=2_3_), https://y.example/*z*, "
        "ref (https://r.example/_r_), below, me (me@x.example), a chart and https://z.example."
    )


def test_emphasis_and_tags_go_but_placeholders_and_snake_case_stay(tmp_path: Path) -> None:
    loaded = markdown(tmp_path, "**Bold** *it* _too_<br>a_b_c 2 * 3 <your-name> &amp; <b>x</b> 5\\*\n")
    assert loaded.sections[0].text == "Bold it too\na_b_c 2 * 3 <your-name> & x 5*"


def test_tables_become_plain_rows_in_both_notations(tmp_path: Path) -> None:
    loaded = markdown(
        tmp_path,
        "| City | Rate |\n|------|:----:|\n|Berlin| 90 |\n\n<table><tr><th>A</th><th>B</th></tr>"
        '<tr><td>1<br>2</td><td><a href="https://x.example">x</a></td></tr></table>\n',
    )
    assert loaded.sections[0].text == ("| City | Rate |\n| Berlin | 90 |\n\n| A | B |\n| 1 2 | x (https://x.example) |")


def test_tables_without_outer_bars_and_bars_within_cells_keep_their_columns(tmp_path: Path) -> None:
    loaded = markdown(
        tmp_path,
        "City | Rate\n--- | ---:\nBerlin | 90\nLisbon | 80\n\nNo | table.\n\n"
        "| Name | Use |\n|---|---|\n| a \\| b | c |\n",
    )
    assert loaded.sections[0].text == (
        "| City | Rate |\n| Berlin | 90 |\n| Lisbon | 80 |\n\nNo | table.\n\n| Name | Use |\n| a / b | c |"
    )


def html(text: str) -> LoadedDocument:
    return loaders.parse(Path("page.html"), text.encode())


def test_html_reads_like_markdown(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(
        "<html><head><title>Travel &amp; rest</title><link rel=canonical href='https://in.example/t'>"
        "<style>p {x}</style></head><body><nav>Menu</nav><h1>Travel &amp; rest</h1><p>Book\n early.</p>"
        "<h2>Trains</h2><ul><li>First <b>class</b></li><li>Second</li></ul><pre>a  # b\n c</pre>"
        "<script>alert(1)</script></body></html>"
    )
    loaded = loaders.load(file)
    assert (loaded.title, loaded.url) == ("Travel & rest", "https://in.example/t")
    assert [s.heading for s in loaded.sections] == ["", "Trains"]
    assert loaded.sections[0].text == "Book early."
    assert loaded.sections[1].text == "- First class\n- Second\n\n```\na  # b\n c\n```"


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("<p>Write &lt;!-- before it.</p><p>End.</p>", "Write <!-- before it.\n\nEnd."),
        ("<p>The tag &lt;b&gt; and {{ user.name }} {% x %}</p>", "The tag <b> and {{ user.name }} {% x %}"),
        (r"<p>\\fileserver\hr\_forms_ __init__ *x*</p>", r"\\fileserver\hr\_forms_ __init__ *x*"),
        ("<p># x</p><p>Words<br>---</p>", "# x\n\nWords\n---"),
        ("<a href='/f(1)?a=1&amp;copy=2'>the _form_</a>", "the _form_ (/f(1)?a=1&copy=2)"),
        ("<pre>a <a href='/b'>b</a> ```\n\n\n# c</pre>", "````\na b ```\n\n\n# c\n````"),
    ],
)
def test_html_is_read_once(written: str, seen: str) -> None:
    """What a browser shows is no Markdown, whatever it looks like."""
    loaded = html(f"<title>T</title><body>{written}")
    assert [(s.heading, s.text) for s in loaded.sections] == [("", seen)]


def test_the_head_of_a_page_may_stay_open_and_a_picture_has_no_say_in_its_title() -> None:
    loaded = html("<html><head><title>Rest</title><body><svg><title>Logo</title></svg><p>Words.</p>")
    assert loaded == LoadedDocument("Rest", "", (Section("", "Words."),))


def test_html_headings_end_where_the_next_block_begins() -> None:
    loaded = html("<a href='/x'><h2><div>Leave</div></h2><p>Days</p></a><h2>Run <code>it</code><p>Now.<h3>Empty</h3>")
    assert [(s.heading, s.text) for s in loaded.sections] == [("Leave", "Days (/x)"), ("Run it", "Now.")]


def test_captions_and_tables_within_tables_leave_rows_whole() -> None:
    loaded = html(
        "<table><caption>Rates</caption><tr><th>City<th>Days</tr><tr><td>Rome<td>"
        "<table><tr><td>x<td>y</table><tr><td>Lisbon<td>26<tr><td>Oslo<td>25</table>"
    )
    assert loaded.sections[0].text == (
        "Rates\n\n| City | Days |\n| Rome |  |\n| Lisbon | 26 |\n| Oslo | 25 |\n\n| x | y |"
    )


def test_csv_rows_are_sections(tmp_path: Path) -> None:
    file = tmp_path / "faq.csv"
    file.write_text('Question,Answer,Tag\n"Who pays, then?","The company.\nAlways.",x\nEmpty?,,y\n')
    assert loaders.load(file).sections == (Section("Who pays, then?", "The company.\nAlways."),)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.md", b"\x89PNG\r\n\x00\x00", "binary"),
        ("a.md", b"caf\xe9", "not UTF-8 text"),
        ("a.md", b" \n", "holds no text"),
        ("a.md", b"---\ntitle: Only\n---\n", "holds no text"),
        ("a.xyz", b"words", "of a kind that cannot be read"),
        ("a.csv", b"x,y\n1,2\n", "columns question and answer"),
    ],
)
def test_bad_files_give_one_sentence(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(UserError, match=sentence) as caught:
        loaders.load(file)
    assert "\n" not in str(caught.value)


def test_a_page_that_only_moved_says_where_to(tmp_path: Path) -> None:
    loaded = markdown(tmp_path, "---\ntitle: Org chart\nredirect_to: https://docs.example/org\n---\n")
    assert loaded == LoadedDocument(
        "Org chart", "https://docs.example/org", (Section("", "See https://docs.example/org"),)
    )


@given(st.text(max_size=400))
@settings(max_examples=100)
def test_no_text_breaks_the_markdown_loader(text: str) -> None:
    path = Path("x.md")
    try:
        loaded = loaders.parse(path, text.encode("utf-8", "surrogatepass"))
    except UserError:
        return
    assert all(section.text.strip() for section in loaded.sections)
    assert not re.search("[\ue000\ue001\x00-\x08]", "".join(s.heading + s.text for s in loaded.sections))


# Chunker


def cut(*sections: Section, title: str = "Title") -> list[chunker.Piece]:
    return list(chunker.split(LoadedDocument(title, "", sections), words)[1])


def size(title: str, piece: chunker.Piece) -> int:
    above = f"{title} > {piece.heading}" if piece.heading else title
    return words([f"{above}\n{piece.text}"])[0]


def test_short_sections_stay_whole_under_their_heading() -> None:
    pieces = cut(Section("", "Intro."), Section("A > B", "One.\n\nTwo."))
    assert [(p.heading, p.text, p.section) for p in pieces] == [
        ("", "Intro.", "Intro."),
        ("A > B", "One.\n\nTwo.", "One.\n\nTwo."),
    ]


def test_long_sections_are_cut_between_sentences() -> None:
    text = " ".join(f"Sentence number {n} has a few words (e.g. this)." for n in range(60))
    pieces = cut(Section("H", text))
    assert len(pieces) > 2
    assert all(p.text.startswith("Sentence") and p.text.endswith(").") for p in pieces)
    assert " ".join(p.text for p in pieces) == text


def test_long_lists_of_commands_are_cut_between_lines() -> None:
    lines = [f"deploy --host node{n} --with {n} copies of everything" for n in range(60)]
    pieces = cut(Section("H", "\n".join(lines)))
    assert len(pieces) > 2
    assert [line for p in pieces for line in p.text.split("\n")] == lines
    assert all(p.text in p.section and set(p.section.split("\n")) <= set(lines) for p in pieces)


def test_lines_and_scripts_without_spaces_stay_as_they_are_in_a_long_paragraph() -> None:
    lined = "\n".join(f"Press button {n} of the panel. Then wait." for n in range(60))
    assert {line for p in cut(Section("H", lined)) for line in p.text.split("\n")} == set(lined.split("\n"))
    unspaced = "".join(f"第{n}条 この 規則 は 全員 に 適用 される。" for n in range(60))
    assert "".join(p.text for p in cut(Section("H", unspaced))) == unspaced


def test_list_items_are_not_torn() -> None:
    items = [f"- item {n} with some words\n  and a second line" for n in range(40)]
    pieces = cut(Section("H", "\n".join(items)))
    assert "\n".join(p.text for p in pieces) == "\n".join(items)
    assert all(p.text.startswith("- item") and p.text.endswith("second line") for p in pieces)


def test_long_tables_repeat_their_header() -> None:
    rows = [f"| city {n} | {n} euros a day |" for n in range(60)]
    pieces = cut(Section("Rates", "\n".join(["| City | Rate |", *rows])))
    assert len(pieces) > 2
    assert all(p.text.startswith("| City | Rate |\n| city") for p in pieces)
    assert [line for p in pieces for line in p.text.split("\n")[1:]] == rows


def test_long_code_is_fenced_in_every_passage_and_keeps_its_empty_lines() -> None:
    lines = [f"step {n} --with *some* options" if n % 4 else "" for n in range(1, 90)]
    pieces = cut(Section("H", "\n".join(["Do this:", "", "```sh", *lines, "```", "", "Then rest."])))
    assert len(pieces) > 2
    blocks = [s.text for p in pieces for s in sentences(p.text) if s.text.startswith("```")]
    assert [line for block in blocks for line in block.split("\n")[1:-1]] == lines
    assert {(block.split("\n")[0], block.split("\n")[-1]) for block in blocks} == {("```sh", "```")}
    assert sentences(pieces[-1].text)[-1].text == "Then rest."
    assert all(p.section.count("```") == 2 for p in pieces)


def test_the_section_surrounds_the_passage_and_is_capped() -> None:
    text = "\n\n".join(f"Paragraph {n} " + "word " * 60 for n in range(40))
    pieces = cut(Section("H", text))
    assert all(p.text in p.section and len(p.section) <= chunker.SECTION_CHARS for p in pieces)
    middle = pieces[len(pieces) // 2]
    assert 0 < middle.section.index(middle.text) < len(middle.section) - len(middle.text)


LINES = st.sampled_from(
    [
        "word " * 30,
        "- item one",
        "1. first",
        "| a | b |",
        "| " + "cell " * 120 + "|",
        "```",
        "```sh " + "info " * 80,
        "code " * 20,
        "",
        "x" * 900,
        "One. Two! ",
    ]
)


@given(st.lists(LINES, max_size=30), st.text(max_size=300), st.text(max_size=300))
@settings(max_examples=100)
def test_no_passage_exceeds_the_limit_and_no_word_is_lost(lines: list[str], title: str, heading: str) -> None:
    text = "\n".join(lines)
    short, pieces = chunker.split(LoadedDocument(title, "", (Section(heading, text),)), words)
    assert all(size(short, piece) + chunker.SPECIAL <= LIMIT for piece in pieces)
    kept = re.sub(r"\s", "", "".join(piece.text for piece in pieces))
    assert len(kept) >= len(re.sub(r"\s", "", text))


# Ingest


def test_only_what_changed_is_embedded_again(database: Database, embedder: WordHashes, pages: Path) -> None:
    assert ingest(database, embedder, [pages]) == IngestResult(3, 4, 0, 0, ())
    embedder.encoded = 0
    assert ingest(database, embedder, [pages]) == IngestResult(0, 0, 3, 0, ())
    assert embedder.encoded == 0
    (pages / "travel.md").write_text("Fly never.")
    (pages / "phones.txt").unlink()
    assert ingest(database, embedder, [pages]) == IngestResult(1, 1, 1, 1, ())
    assert {Path(p).name for p in documents.hashes(database, "workspace")} == {"leave.md", "travel.md"}


def test_one_folder_does_not_remove_what_came_from_another(
    database: Database, embedder: WordHashes, pages: Path, tmp_path: Path
) -> None:
    other = tmp_path / "pages-of-others"
    other.mkdir()
    (other / "a.md").write_text("Words.")
    ingest(database, embedder, [pages])
    assert ingest(database, embedder, [other]).removed == 0
    assert ingest(database, embedder, [pages / "leave.md"]) == IngestResult(0, 0, 1, 0, ())
    assert documents.counts(database)[0] == 4


def test_broken_files_are_named_and_the_rest_goes_in(database: Database, embedder: WordHashes, pages: Path) -> None:
    (pages / "broken.md").write_bytes(b"\x00\x01")
    (pages / "manual.pdf").write_bytes(b"%PDF")
    (pages / "picture.png").write_bytes(b"\x89PNG")
    result = ingest(database, embedder, [pages])
    assert (result.documents, {Path(f.path).name for f in result.failed}) == (3, {"broken.md", "manual.pdf"})
    assert Failure(str(pages / "broken.md"), "broken.md is a binary file, not text.") in result.failed


def test_hidden_files_and_links_that_lead_out_are_passed_by(
    database: Database, embedder: WordHashes, pages: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside.md").write_text("Secret plans.")
    (pages / "link.md").symlink_to(tmp_path / "outside.md")
    (pages / ".hidden.md").write_text("Hidden.")
    (pages / ".git").mkdir()
    (pages / ".git" / "x.md").write_text("Hidden.")
    assert ingest(database, embedder, [pages]).documents == 3


def test_a_missing_path_stops_before_anything_changes(database: Database, embedder: WordHashes, pages: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        ingest(database, embedder, [pages, pages / "nowhere"])
    assert documents.counts(database) == (0, 0)


def names(database: Database, scope: str = "workspace") -> set[str]:
    return {Path(path).name for path in documents.hashes(database, scope)}


def test_a_path_that_is_gone_takes_out_what_was_stored_of_it(
    database: Database, embedder: WordHashes, pages: Path
) -> None:
    ingest(database, embedder, [pages / "leave.md", pages / "travel.md"])
    (pages / "leave.md").unlink()
    assert ingest(database, embedder, [pages / "leave.md"]) == IngestResult(0, 0, 0, 1, ())
    assert names(database) == {"travel.md"}, "phones.txt was never asked for"
    with pytest.raises(NotFoundError, match="nothing of it is stored for workspace"):
        ingest(database, embedder, [pages / "leave.md"])


def test_a_folder_that_was_moved_is_served_once(database: Database, embedder: WordHashes, pages: Path) -> None:
    ingest(database, embedder, [pages])
    moved = pages.rename(pages.parent / "handbook")
    assert ingest(database, embedder, [pages, moved]) == IngestResult(3, 4, 0, 3, ())
    assert all(Path(path).is_relative_to(moved) for path in documents.hashes(database, "workspace"))


def test_a_path_that_is_gone_is_taken_from_its_scope_only(
    database: Database, embedder: WordHashes, pages: Path
) -> None:
    ingest(database, embedder, [pages], PRIVATE)
    ingest(database, embedder, [pages], "C0OTHER")
    pages.rename(pages.parent / "handbook")
    with pytest.raises(NotFoundError):
        ingest(database, embedder, [pages])
    assert ingest(database, embedder, [pages], PRIVATE).removed == 3
    assert (names(database, PRIVATE), len(names(database, "C0OTHER"))) == (set(), 3)


def test_links_in_a_circle_are_no_path(database: Database, embedder: WordHashes, tmp_path: Path) -> None:
    (tmp_path / "a.md").symlink_to(tmp_path / "b.md")
    (tmp_path / "b.md").symlink_to(tmp_path / "a.md")
    with pytest.raises(NotFoundError, match="does not exist"):
        ingest(database, embedder, [tmp_path / "a.md"])


def test_a_page_given_to_a_channel_leaves_the_workspace(
    database: Database, index: VectorIndex, embedder: WordHashes, pages: Path
) -> None:
    ingest(database, embedder, [pages])
    assert index.try_open()
    assert ingest(database, embedder, [pages / "travel.md"], PRIVATE) == IngestResult(1, 1, 0, 1, ())
    retriever = Retriever(database, embedder, index)
    assert "Travel" not in {p.document for p in retriever.search("book trains early", 50)}
    assert retriever.search("book trains early", 1, ("workspace", PRIVATE))[0].document == "Travel"
    assert ingest(database, embedder, [pages / "travel.md"], "C0OTHER") == IngestResult(1, 1, 0, 0, ())
    assert names(database, PRIVATE) == names(database, "C0OTHER") == {"travel.md"}, "two channels may share a page"


def test_the_folder_does_not_open_a_page_again_and_says_how_to(
    database: Database, embedder: WordHashes, pages: Path
) -> None:
    private = pages / "travel.md"
    ingest(database, embedder, [private], PRIVATE)
    ingest(database, embedder, [private], "C0OTHER")
    private.write_text("Fly never.")
    reason = "travel.md is kept to C0PRIVATE, C0OTHER; to open it to everybody, name the file, not its folder."
    kept = (Failure(str(private), reason),)
    assert ingest(database, embedder, [pages]) == IngestResult(2, 3, 0, 0, kept)
    assert ingest(database, embedder, [pages]) == IngestResult(0, 0, 2, 0, kept)
    assert ingest(database, embedder, [pages, private]) == IngestResult(1, 1, 2, 2, ())
    assert (names(database, PRIVATE), names(database, "C0OTHER")) == (set(), set())
    assert ingest(database, embedder, [pages]) == IngestResult(0, 0, 3, 0, ())


def put_in_both(database: Database, file: Path) -> None:
    """As it could be before one of the two had to give way."""
    for scope in ("workspace", PRIVATE):
        documents.replace(
            database, NewDocument(file.as_posix(), scope, "Title", "", fingerprint(file.read_bytes())), []
        )


@pytest.mark.parametrize(
    ("named", "scope", "left"),
    [
        ("a.md", PRIVATE, PRIVATE),
        ("a.md", "workspace", "workspace"),
        (".", PRIVATE, PRIVATE),
        (".", "workspace", PRIVATE),
    ],
)
def test_a_page_that_lay_in_both_comes_to_lie_in_one_and_is_not_embedded_again(
    database: Database, embedder: WordHashes, tmp_path: Path, named: str, scope: str, left: str
) -> None:
    (tmp_path / "a.md").write_text("Words.")
    put_in_both(database, tmp_path / "a.md")
    result = ingest(database, embedder, [tmp_path / named], scope)
    assert (result.documents, result.removed, embedder.encoded) == (0, 1, 0)
    assert len(result.failed) == (scope != left)
    assert [one for one in ("workspace", PRIVATE) if names(database, one)] == [left]


def test_a_page_that_cannot_be_read_is_opened_to_nobody(database: Database, embedder: WordHashes, pages: Path) -> None:
    file = pages / "leave.md"
    ingest(database, embedder, [file])
    readable = file.read_bytes()
    file.write_bytes(b"\x00")
    assert [ingest(database, embedder, [file], PRIVATE).removed, names(database)] == [1, set()]
    file.write_bytes(readable)
    ingest(database, embedder, [file], PRIVATE)
    file.write_bytes(b"\x00")
    result = ingest(database, embedder, [file])
    assert (result.removed, len(result.failed), names(database, PRIVATE)) == (0, 1, {"leave.md"})


def test_a_move_that_breaks_off_leaves_the_page_where_it_was(
    database: Database, embedder: WordHashes, pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(database, embedder, [pages])

    def break_off(texts: Sequence[str]) -> NDArray[np.float32]:
        raise KeyboardInterrupt

    monkeypatch.setattr(embedder, "encode", break_off)
    with pytest.raises(KeyboardInterrupt):
        ingest(database, embedder, [pages / "leave.md"], PRIVATE)
    assert (len(names(database)), names(database, PRIVATE)) == (3, set())


def test_another_model_embeds_everything_again(
    database: Database,
    index: VectorIndex,
    embedder: WordHashes,
    pages: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ingest(database, embedder, [pages])
    index.try_open()
    larger = WordHashes("larger", 96)
    with caplog.at_level(logging.WARNING):
        found = Retriever(database, larger, index).search("trains")
    assert "embedded by hashes" in caplog.text
    assert [p.document for p in found] == ["Travel"]  # by words alone
    ingest(database, larger, [pages])
    assert documents.embedder(database) == ("larger", 96)
    assert Retriever(database, larger, index).hits("book trains early")[0].cosine > 0.5
    index.drain()
    assert index.check().ok


class Folder(Embedder):
    """An embedder that computes from its folder's configuration alone: word hashes of the length that it names."""

    @property
    def dimension(self) -> int:
        return int(json.loads((Path(self._source) / "config.json").read_text())["hidden_size"])

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return WordHashes(dimension=self.dimension).encode(texts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return words(texts)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A sentence model's folder."""
    folder = tmp_path / "sentence-model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "config.json").write_text('{"hidden_size": 64}')
    (folder / "model.safetensors").write_bytes(b"weights of one")
    return folder


def test_an_embedder_is_named_after_what_its_folder_holds(model: Path, tmp_path: Path) -> None:
    named = Embedder(str(model)).name
    (model / "README.md").write_text("Words for people.")
    (model / ".cache").mkdir()
    (model / ".cache" / "when.json").write_text("{}")
    assert named.startswith("sentence-model@")
    assert Embedder(f"{model}/").name == named
    names = {named}
    for inside, content in (
        ("model.safetensors", "weights of two"),  # as many bytes as before
        ("config.json", '{"hidden_size": 32}'),
        ("1_Pooling/config.json", '{"pooling_mode_cls_token": true}'),
    ):
        (model / inside).write_text(content)
        names.add(Embedder(str(model)).name)
    assert len(names) == 4
    model.rename(tmp_path / "old")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "old").rename(tmp_path / "elsewhere" / "sentence-model")
    assert Embedder(str(tmp_path / "elsewhere" / "sentence-model")).name in names


def test_models_that_are_no_folder_keep_their_names_so_that_indexes_stay_valid() -> None:
    assert Embedder().name == "all-MiniLM-L6-v2"
    assert Embedder("intfloat/multilingual-e5-small").name == "intfloat/multilingual-e5-small"


@pytest.mark.parametrize("config", ['{"hidden_size": 32}', '{"hidden_size": 64, "layers": 3}'])
def test_a_model_that_was_replaced_in_its_folder_embeds_everything_again(
    database: Database, index: VectorIndex, pages: Path, model: Path, config: str
) -> None:
    ingest(database, Folder(str(model)), [pages])
    index.try_open()
    (model / "config.json").write_text(config)
    replaced = Folder(str(model))
    retriever = Retriever(database, replaced, index)
    assert [(hit.passage.document, hit.cosine) for hit in retriever.hits("trains")] == [("Travel", 0.0)]
    assert ingest(database, replaced, [pages]) == IngestResult(0, 0, 3, 0, ())
    assert documents.embedder(database) == (replaced.name, replaced.dimension)
    assert retriever.hits("book trains early")[0].cosine > 0.5
    index.drain()
    assert index.check().ok


def test_vectors_of_another_length_under_the_same_name_are_never_mixed(
    database: Database, index: VectorIndex, embedder: WordHashes, pages: Path
) -> None:
    ingest(database, embedder, [pages])
    shorter = WordHashes(embedder.name, 32)
    retriever = Retriever(database, shorter, index)
    assert [hit.passage.document for hit in retriever.hits("trains")] == ["Travel"]  # by words alone
    (pages / "more.md").write_text("Park bicycles inside.")
    assert ingest(database, shorter, [pages]) == IngestResult(1, 1, 3, 0, ())
    assert documents.all_vectors(database).matrix.shape == (5, 32)
    assert retriever.hits("book trains early")[0].cosine > 0.5


def test_a_store_of_mixed_vectors_is_healed_by_the_next_ingest(
    database: Database, index: VectorIndex, embedder: WordHashes, pages: Path
) -> None:
    ingest(database, embedder, [pages])
    mixed = NewPassage("", "Bicycles stay inside.", "", WordHashes(dimension=32).encode(["bicycles"])[0])
    documents.replace(database, NewDocument("/x.md", "C1", "X", "", "0"), [mixed])
    ingest(database, embedder, [pages])
    assert documents.all_vectors(database).matrix.shape == (5, 64)
    assert Retriever(database, embedder, index).hits("book trains early")[0].cosine > 0.5


@pytest.mark.parametrize("dimension", [96, 64])
def test_taught_questions_are_embedded_again_by_another_model(database: Database, dimension: int) -> None:
    """With one of the same width nothing would even fail: unlike vectors would be compared."""
    before, after = WordHashes(), Backwards("larger", dimension)
    for question in ("Who waters the plants?", "Where do visitors park?"):
        row = corrections.propose(database, question=question, answer="Liis.", author="ana")
        corrections.approve(database, row.id, "ben")
    asked = "where do visitors park"
    assert (found := TaughtQuestions(database, before).nearest(asked, before.encode([asked])[0]))
    again = TaughtQuestions(database, after).nearest(asked, after.encode([asked])[0])
    assert again
    assert (again.correction_id, again.cosine) == (found.correction_id, pytest.approx(found.cosine, abs=0.02))
    assert corrections.wordings_to_embed(database, after.name) == []


def test_progress_ends_with_everything_done(database: Database, embedder: WordHashes, pages: Path) -> None:
    seen: list[tuple[int, int]] = []
    ingest(database, embedder, [pages], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_files_are_stored_while_others_are_still_unread(
    database: Database, embedder: WordHashes, pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was stored before a run was killed is there, and the next run goes on behind it."""
    read: list[str] = []

    def read_until_killed(path: Path) -> bytes:
        read.append(path.name)
        if path.name == "travel.md":
            raise KeyboardInterrupt
        return path.read_bytes()

    monkeypatch.setattr("retrieval.ingest.TOGETHER", 2)
    with monkeypatch.context() as killed:
        killed.setattr("retrieval.loaders.read", read_until_killed)
        with pytest.raises(KeyboardInterrupt):
            ingest(database, embedder, [pages])
    assert read == ["leave.md", "phones.txt", "travel.md"]
    assert names(database) == {"leave.md"}
    assert ingest(database, embedder, [pages]) == IngestResult(2, 2, 1, 0, ())


# Words


@pytest.mark.parametrize("question", ['"', "a AND", "NEAR(x", "x* OR NOT", "col:y", "^x - +", "🙂", "\x00", "e\u0301"])
def test_operators_are_only_words(database: Database, embedder: WordHashes, pages: Path, question: str) -> None:
    ingest(database, embedder, [pages])
    plain = lexical.search(database, "trains", 5, ("workspace",))
    assert len(plain) == 1
    assert lexical.search(database, f"{question} trains", 5, ("workspace",))[0][0] == plain[0][0]


def test_any_text_is_a_safe_query(home: Path) -> None:
    database = Database(home)
    ingest_one(database, "Book trains early.")

    @given(st.text(max_size=200))
    @settings(max_examples=200)
    def harmless(text: str) -> None:
        assert len(lexical.search(database, text, 5, ("workspace",))) <= 1
        assert set(lexical.scores(database, text, [1])) <= {1}

    harmless()


def ingest_one(database: Database, text: str) -> None:
    file = database.home / "one.md"
    file.write_text(text)
    ingest(database, WordHashes(), [file])


def test_stop_words_do_not_count_unless_alone(database: Database) -> None:
    assert lexical.query("What is the rate of it?") == '"rate"'
    assert lexical.query("who is it") == '"who" OR "is" OR "it"'
    assert lexical.query("?!") == ""


# Search


def test_both_rankings_count_and_one_is_best() -> None:
    fused = fuse([([1, 2], 1.0), ([1, 3], 1.0)])
    assert list(fused) == [1, 2, 3]
    assert fused[1] == pytest.approx(1.0)
    assert fuse([([2, 1], 2.0), ([1, 2], 1.0)])[2] > fuse([([2, 1], 2.0), ([1, 2], 1.0)])[1]


def test_the_right_passage_comes_first_with_all_scores(
    database: Database, index: VectorIndex, embedder: WordHashes, pages: Path
) -> None:
    ingest(database, embedder, [pages])
    hit = Retriever(database, embedder, index).hits("How many days carry over?", k=2)[0]
    assert (hit.passage.document, hit.passage.heading) == ("Leave", "Carry over")
    assert hit.fused == hit.passage.score == pytest.approx(1.0)
    assert hit.cosine > 0
    assert hit.bm25 > 0


@pytest.mark.parametrize("opened", [True, False])
def test_a_private_channel_is_found_only_from_inside(
    database: Database, index: VectorIndex, embedder: WordHashes, pages: Path, opened: bool
) -> None:
    secret = pages.parent / "secret.md"
    secret.write_text("# Merger\n\nThe merger closes in May.")
    ingest(database, embedder, [pages])
    ingest(database, embedder, [secret], scope=PRIVATE)
    assert not opened or index.try_open()
    retriever = Retriever(database, embedder, index)
    assert "Merger" not in {p.document for p in retriever.search("When does the merger close in May?", 50)}
    assert retriever.search("When does the merger close?", 1, ("workspace", PRIVATE))[0].document == "Merger"
    assert retriever.search("When does the merger close?", 50, ()) == []


def test_a_model_reads_the_sections_around_what_was_found(
    database: Database, index: VectorIndex, embedder: WordHashes, tmp_path: Path
) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    parts = [f"{'zebra ' * 60}stripes number {n}." for n in range(6)]
    (folder / "zoo.md").write_text("# Zoo\n\n## Zebras\n\n" + "\n\n".join(parts) + "\n\n## Okapi\n\nShy animals.")
    for n in range(3):
        (folder / f"herd-{n}.md").write_text(f"# Herd {n}\n\n" + "\n\n".join(parts) + "\n\nOkapi.")
    ingest(database, embedder, [folder])
    retriever = Retriever(database, embedder, index)
    hits = retriever.hits("zebra stripes number", 3)
    near = [hit for hit in hits if hit.passage.document == hits[0].passage.document]
    (whole, *_) = retriever.notes(near, ("workspace",))
    assert whole.startswith(("Zoo > Zebras\n", "Herd"))
    assert len(whole) > 2 * len(near[0].passage.text), "its neighbours come too"
    assert len(retriever.notes([near[0], near[0]], ("workspace",))) == 1
    many = retriever.hits("zebra stripes okapi", 12)
    read = retriever.notes(many, ("workspace",))
    assert len(set(read)) == len(read)
    assert all(any(hit.passage.text in note for note in read) for hit in many), "what was found is there in any case"
    alone = sum(len(hit.passage.titled) for hit in many)
    assert sum(map(len, read)) <= max(NOTES_CHARS, alone)
    assert retriever.notes(many, ()) == [hit.passage.titled for hit in many], "no section of another scope"


def test_pages_that_an_ingest_takes_away_meanwhile_are_no_error(
    database: Database, index: VectorIndex, embedder: WordHashes, pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(database, embedder, [pages])
    read = documents.passages

    def read_and_gone(*given: Any) -> Any:
        found = read(*given)
        for path in documents.hashes(database, "workspace"):
            documents.remove(database, path, "workspace")
        return found

    monkeypatch.setattr(documents, "passages", read_and_gone)
    hits = Retriever(database, embedder, index).hits("How many days carry over?", 3)
    assert [hit.cosine for hit in hits] == [0.0] * len(hits)
    assert hits


def test_an_index_that_lies_about_scopes_is_not_believed(
    database: Database, home: Path, embedder: WordHashes, pages: Path
) -> None:
    class Liar(VectorIndex):
        def search(self, vector: object, k: int, scopes: object) -> list[tuple[int, float]]:
            return [(i, 1.0) for i in range(1, 10)]

    ingest(database, embedder, [pages], scope=PRIVATE)
    assert Retriever(database, embedder, Liar(home, database)).search("days") == []


# Index


def test_who_drains_does_not_close_an_index_that_is_being_opened(
    home: Path, database: Database, embedder: WordHashes, pages: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ingest(database, embedder, [pages])
    built, again = VectorIndex(home, database), VectorIndex(home, database)
    assert built.try_open()
    built.drain()
    built.close()
    caplog.clear()
    reached, go_on, connect = threading.Event(), threading.Event(), again._connect

    def slowly(folder: Path, *, create: bool) -> Any:
        """Rows whose graph takes a while to build."""
        client, rows = connect(folder, create=create)
        get = rows.get

        def late(**asked: Any) -> Any:
            reached.set()
            assert go_on.wait(20)
            return get(**asked)

        rows.get = late
        return client, rows

    again._connect = slowly  # type: ignore[method-assign]
    again.try_open(background=True)
    assert reached.wait(20)
    assert again.drain() == 0
    assert again._client is not None
    go_on.set()
    end = time.monotonic() + 20
    while again._rows is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    again.close()
    assert "rebuilt" not in caplog.text


def test_the_index_and_the_exact_search_agree(
    home: Path, database: Database, index: VectorIndex, embedder: WordHashes, pages: Path
) -> None:
    ingest(database, embedder, [pages])
    assert index.try_open()
    vector = embedder.encode(["book a train for five days"])[0]
    exact = VectorIndex(home, database).search(vector, 4, ("workspace",))
    found = index.search(vector, 4, ("workspace",))
    assert [i for i, _ in found] == [i for i, _ in exact]
    np.testing.assert_allclose([c for _, c in found], [c for _, c in exact], atol=1e-5)


def test_a_second_opener_stays_outside_and_still_answers_freshly(
    home: Path, database: Database, index: VectorIndex, embedder: WordHashes, pages: Path
) -> None:
    ingest(database, embedder, [pages])
    assert index.try_open()
    second = VectorIndex(home, database)
    assert not second.try_open()
    assert (second.drain(), second.rebuild()) == (0, 0)
    (pages / "new.md").write_text("Bicycles are repaired on Fridays.")
    ingest(database, embedder, [pages])
    vector = embedder.encode(["bicycles repaired"])[0]
    for reader in (second, index):
        best = reader.search(vector, 1, ("workspace",))[0][0]
        assert documents.passages(database, [best], ("workspace",))[0].document == "New"
    assert documents.backlog(database) == 0  # the owner took the change up while it was asked
    index.close()
    assert second.try_open()
    second.close()


def test_the_outbox_is_applied_and_removed_rows_are_gone(
    database: Database, index: VectorIndex, embedder: WordHashes, pages: Path
) -> None:
    ingest(database, embedder, [pages])
    assert index.try_open()
    (pages / "leave.md").unlink()
    ingest(database, embedder, [pages])
    assert index.drain() == 2
    assert index.check().ok
    assert len(index.search(embedder.encode(["days"])[0], 10, ("workspace",))) == 2


def test_a_long_backlog_is_not_applied_while_somebody_waits(
    database: Database, index: VectorIndex, embedder: WordHashes, pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(database, embedder, [pages])
    assert index.try_open()
    monkeypatch.setattr("retrieval.index.DRAIN_WHILE_ASKED", 0)
    (pages / "new.md").write_text("Bicycles are repaired on Fridays.")
    ingest(database, embedder, [pages])
    found = index.search(embedder.encode(["bicycles repaired fridays"])[0], 1, ("workspace",))
    assert documents.passages(database, [found[0][0]], ("workspace",))[0].document == "New"
    assert documents.backlog(database) == 1
    assert index.drain() == 1


def test_reopening_finds_the_same_rows(home: Path, database: Database, embedder: WordHashes, pages: Path) -> None:
    ingest(database, embedder, [pages])
    for _ in range(2):
        index = VectorIndex(home, database)
        assert index.try_open()
        assert index.check().ok
        folder = (home / "index" / "current").read_text()
        index.close()
    assert [p.name for p in (home / "index").iterdir() if p.is_dir()] == [folder]


@pytest.mark.parametrize("damage", ["marker", "missing row", "foreign row", "other model", "no pointer"])
def test_an_index_that_cannot_be_trusted_is_rebuilt(
    home: Path, database: Database, embedder: WordHashes, pages: Path, damage: str
) -> None:
    ingest(database, embedder, [pages])
    index = VectorIndex(home, database)
    assert index.try_open()
    before = (home / "index" / "current").read_text()
    rows = index._open_rows
    if damage == "missing row":
        rows.delete(ids=["1"])
    elif damage == "foreign row":
        rows.upsert(ids=["999"], embeddings=embedder.encode(["x"]), metadatas=[{"scope": "workspace"}])
    index.close()
    if damage == "marker":
        (home / "index" / "busy").touch()
    elif damage == "other model":
        documents.set_embedder(database, "other", 64)
    elif damage == "no pointer":
        (home / "index" / "current").unlink()
    again = VectorIndex(home, database)
    assert again.try_open()
    assert again.check().ok
    assert (home / "index" / "current").read_text() != before
    again.close()


def test_a_failing_index_does_not_cost_an_answer(
    database: Database,
    index: VectorIndex,
    embedder: WordHashes,
    pages: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ingest(database, embedder, [pages])
    assert index.try_open()
    index._client.delete_collection("passages")  # type: ignore[union-attr]
    assert len(index.search(embedder.encode(["days"])[0], 2, ("workspace",))) == 2
    assert "searching exactly" in caplog.text
    assert index.drain() == 4  # every row again, in a new index
    assert index.check().ok


def test_an_outbox_that_cannot_be_applied_rebuilds_the_index(
    database: Database, index: VectorIndex, embedder: WordHashes, pages: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ingest(database, embedder, [pages])
    assert index.try_open()
    index._client.delete_collection("passages")  # type: ignore[union-attr]
    (pages / "new.md").write_text("Bicycles are repaired on Fridays.")
    ingest(database, embedder, [pages])
    assert len(index.search(embedder.encode(["days"])[0], 10, ("workspace",))) == 5
    assert "which is rebuilt" in caplog.text
    assert index.check().ok


def test_many_threads_may_search_while_documents_change(
    database: Database, index: VectorIndex, embedder: WordHashes, pages: Path
) -> None:
    ingest(database, embedder, [pages])
    assert index.try_open()
    retriever = Retriever(database, embedder, index)

    def ask(number: int) -> str:
        if number % 5 == 0:
            (pages / f"new{number}.md").write_text(f"Bicycle {number} is repaired on Fridays.")
            ingest(database, embedder, [pages / f"new{number}.md"])
        found = retriever.search("How many days carry over?", 3)[0].heading
        database.close()
        return found

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(ask, range(40))) == {"Carry over"}
    index.drain()
    assert index.check().ok


def test_an_empty_index_opens_and_takes_up_the_first_documents(
    database: Database, index: VectorIndex, embedder: WordHashes, pages: Path
) -> None:
    assert index.try_open()
    assert index.search(embedder.encode(["days"])[0], 3, ("workspace",)) == []
    ingest(database, embedder, [pages])
    assert len(index.search(embedder.encode(["days"])[0], 3, ("workspace",))) == 3
    assert index.check().ok


def test_the_owner_is_one_process(home: Path, database: Database, index: VectorIndex) -> None:
    assert index.try_open()
    code = (
        "import sys, pathlib; from storage.database import file_lock\n"
        "try:\n    file_lock(pathlib.Path(sys.argv[1]), wait=False).__enter__()\n"
        "except BlockingIOError:\n    sys.exit(7)"
    )
    command = [sys.executable, "-c", code, str(home / "index.lock")]
    assert subprocess.run(command, cwd=Path(__file__).parents[1], check=False).returncode == 7


# Commands


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    from retrieval import commands
    from storage import cli
    from storage import settings as table

    monkeypatch.setattr("retrieval.embedder.Embedder", lambda model: WordHashes())
    context = cli.Context(table.load({}, overrides={"HOME": str(home)}))

    def invoke(name: str, *arguments: object) -> tuple[dict[str, Any], str]:
        result = CliRunner().invoke(
            getattr(commands, name), [*map(str, arguments), "--json"], obj=context, catch_exceptions=False
        )
        return json.loads(result.stdout) if result.stdout else {}, result.stderr

    return invoke


def test_ingest_and_search_speak_the_agreed_json(run: Run, pages: Path) -> None:
    (pages / "broken.md").write_bytes(b"\x00")
    result, _ = run("ingest", pages)
    assert result == {
        "ok": True,
        "documents": 3,
        "passages": 4,
        "unchanged": 0,
        "removed": 0,
        "failed": [{"path": str(pages / "broken.md"), "reason": "broken.md is a binary file, not text."}],
    }
    found, _ = run("search", "book trains early", "-k", 1)
    assert found["ok"] is True
    assert [p["document"] for p in found["passages"]] == ["Travel"]
    assert found["passages"][0].keys() >= {"document", "heading", "text", "score"}


def test_search_reads_many_questions_from_a_file(run: Run, pages: Path, tmp_path: Path) -> None:
    run("ingest", pages)
    lines = tmp_path / "in.jsonl"
    lines.write_text('{"question": "book trains", "id": 7}\n{"question": " "}\n')
    result, _ = run("search", "--batch", lines, "--out", tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert result["lines"] == 2
    assert (rows[0]["id"], rows[0]["ok"], rows[0]["passages"][0]["document"]) == (7, True, "Travel")
    assert (rows[1]["ok"], rows[1]["error"]["code"]) == (False, "bad_input")


def test_ingest_says_when_the_bot_owns_the_index(run: Run, pages: Path, database: Database, index: VectorIndex) -> None:
    index.try_open()
    result, stderr = run("ingest", pages)
    assert result["documents"] == 3
    assert "owns the vector index" in stderr
    assert index.drain() > 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("ingest", "nowhere"), "does not exist"),
        (("ingest", ".", "--scope", "everyone!"), "is no scope"),
        (("search", "  "), "empty"),
        (("search", "x" * 50_000), "at most"),
    ],
)
def test_mistakes_are_one_sentence(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        run(*arguments)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_private_altogether_is_an_error_for_the_workspace(run: Run, pages: Path) -> None:
    run("ingest", pages, "--scope", PRIVATE)
    with pytest.raises(UserError, match=r"leave.md is kept to C0PRIVATE; .* 2 other files failed too"):
        run("ingest", pages)


def test_a_single_file_that_fails_is_an_error(run: Run, tmp_path: Path, database: Database) -> None:
    (tmp_path / "x.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="binary"):
        run("ingest", tmp_path / "x.md")
    assert documents.counts(database) == (0, 0)


def test_the_commands_import_nothing_heavy() -> None:
    code = (
        "import sys, retrieval.commands, retrieval.retriever, retrieval.ingest\n"
        "heavy = {'torch', 'chromadb', 'sentence_transformers', 'transformers'} & sys.modules.keys()\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0


# What the embedder remembers


class Counting(Embedder):
    """An embedder that counts instead of computing."""

    def __init__(self) -> None:
        super().__init__()
        self.computed: list[str] = []

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.computed += texts
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)


def test_a_text_that_comes_twice_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.embedder.RECENT", 2)
    counting = Counting()
    for texts in (["page"], ["page", "a"], ["bb"], ["ccc"], ["dddd"], ["page"]):
        assert counting.encode(texts)[:, 0].tolist() == [len(text) for text in texts]
    assert counting.computed == ["page", "a", "bb", "ccc", "dddd"]


def test_what_is_asked_once_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.embedder.RECENT", 3)
    monkeypatch.setattr("retrieval.embedder.REMEMBERED", 2)
    counting = Counting()
    for number in range(50):
        counting.encode([f"question {number}"])
    for _ in range(2):
        counting.encode(["one", "two", "three"])
    assert list(counting._recent) == []
    assert list(counting._known) == ["two", "three"]
    counting.encode(["question 1"])
    assert counting.computed.count("question 1") == 2
