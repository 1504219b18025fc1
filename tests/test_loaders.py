"""PDF and Word files as a reader sees them; the files are made here, to the byte."""

import io
import re
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from retrieval import docx, loaders, pdf
from retrieval.ingest import ingest
from retrieval.loaders import LoadedDocument, Section
from storage import documents
from storage.database import Database
from storage.errors import UserError

Word = tuple[float, float, float, str]
"""Where a text stands (x, y from below), how large it is set, and what it says."""


def pdf_of(*pages: Sequence[Word], title: str = "") -> bytes:
    """A PDF of these words in Helvetica."""
    parts = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    kids = []
    for words in pages:
        drawn = "\n".join(f"BT /F1 {size} Tf 1 0 0 1 {x} {y} Tm ({escaped(text)}) Tj ET" for x, y, size, text in words)
        parts.append(f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream")
        kids.append(len(parts) + 1)
        parts.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {len(parts)} 0 R "
            "/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>"
        )
    parts[1] = f"<< /Type /Pages /Count {len(kids)} /Kids [{' '.join(f'{k} 0 R' for k in kids)}] >>"
    parts.append(f"<< /Title ({title}) >>")
    out, offsets = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{part}\nendobj\n".encode("latin-1")
    table = "".join(f"{at:010} 00000 n \n" for at in offsets)
    trailer = f"trailer << /Size {len(parts) + 1} /Root 1 0 R /Info {len(parts)} 0 R >>"
    return (
        out + f"xref\n0 {len(parts) + 1}\n0000000000 65535 f \n{table}{trailer}\nstartxref\n{len(out)}\n%%EOF".encode()
    )


def escaped(text: str) -> str:
    """A PDF string, in which brackets need a backslash."""
    return re.sub(r"([()])", r"\\\1", text)


def load(name: str, content: bytes) -> LoadedDocument:
    return loaders.parse(Path(name), content)


LEAVE: list[Word] = [
    (72, 780, 20, "Leave"),
    (72, 740, 14, "Carry over"),
    (72, 715, 10, "Five days move into the next year, and they must be"),
    (72, 703, 10, "used by 31 March; write to leave@lumenpay.example for excep-"),
    (72, 691, 10, "tions."),
    (72, 660, 10, "A new paragraph stands apart."),
    (72, 630, 14, "Rates"),
    (72, 605, 10, "City"),
    (250, 605, 10, "Days"),
    (72, 593, 10, "Lisbon"),
    (250, 593, 10, "26"),
    (72, 581, 10, "Toronto (CA)"),
    (250, 581, 10, "25"),
]


def test_large_lines_of_a_pdf_are_headings_and_wrapped_lines_are_joined() -> None:
    loaded = load("leave.pdf", pdf_of(LEAVE))
    assert loaded.title == "Leave"
    assert loaded.sections[0] == Section(
        "Carry over",
        "Five days move into the next year, and they must be used by 31 March; write to leave@lumenpay.example "
        "for exceptions.\n\nA new paragraph stands apart.",
    )


def test_columns_of_a_pdf_become_table_rows() -> None:
    rates = load("leave.pdf", pdf_of(LEAVE)).sections[1]
    assert rates == Section("Rates", "| City | Days |\n| Lisbon | 26 |\n| Toronto (CA) | 25 |")


def test_running_heads_and_page_numbers_of_a_pdf_are_left_out() -> None:
    pages = [
        [(72, 820, 8, f"Lumen Pay handbook, page {n}"), (72, 700, 10, f"Text number {n}."), (290, 30, 8, str(n))]
        for n in range(1, 5)
    ]
    loaded = load("book.pdf", pdf_of(*pages, title="The book"))
    assert loaded.title == "The book"
    assert [s.text for s in loaded.sections] == ["Text number 1. Text number 2. Text number 3. Text number 4."]


def test_list_items_of_a_pdf_keep_their_lines() -> None:
    words = [(72, 700, 10, "You need:"), (72, 688, 10, "- a badge"), (72, 676, 10, "- a PIN of six digits")]
    assert load("x.pdf", pdf_of(words)).sections[0].text == "You need:\n- a badge\n- a PIN of six digits"


def test_a_long_pdf_is_read_in_the_time_of_its_length() -> None:
    """4,000 lines once took fifteen seconds; twice as many take a moment."""
    own = [pdf.Line((f"line {n} with words and a hyphen-",), 10.0, 800 - n % 60 * 12, n // 60) for n in range(8000)]
    began = time.process_time()
    assert len(pdf.text_of(own)) > 200_000
    assert time.process_time() - began < 3


def test_a_pdf_without_a_title_is_named_after_its_file() -> None:
    loaded = load("travel-booking.pdf", pdf_of([(72, 700, 10, "Book early.")], title="Microsoft Word - v3.docx"))
    assert loaded == LoadedDocument("Travel booking", "", (Section("", "Book early."),))


def locked() -> bytes:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf_of(LEAVE))))
    writer.encrypt("secret", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def document(body: str, **parts: str) -> bytes:
    """A Word file with this body and these other parts (slashes written as __)."""
    names = (
        'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
        'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("word/document.xml", f"<w:document {names}><w:body>{body}</w:body></w:document>")
        for name, text in parts.items():
            made.writestr(name.replace("__", "/"), text.replace("NAMES", names))
    return out.getvalue()


def paragraph(text: str, style: str = "", extra: str = "") -> str:
    about = f'<w:pPr><w:pStyle w:val="{style}"/>{extra}</w:pPr>' if style or extra else ""
    return f'<w:p>{about}<w:r><w:t xml:space="preserve">{escape(text)}</w:t></w:r></w:p>'


STYLES = (
    '<w:styles NAMES><w:style w:styleId="Titel"><w:name w:val="Title"/></w:style>'
    '<w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>'
    '<w:style w:styleId="berschrift2"><w:name w:val="heading 2"/></w:style>'
    '<w:style w:styleId="Ours"><w:name w:val="Ours"/><w:basedOn w:val="berschrift2"/></w:style></w:styles>'
)


def test_headings_of_a_word_file_are_found_in_any_language() -> None:
    body = (
        paragraph("Time off", "Titel")
        + paragraph("Everyone has 26 days.")
        + paragraph("Leave", "berschrift1")
        + paragraph("Carry over", "Ours")
        + paragraph("Five days move on.")
    )
    assert load("x.docx", styled(body)) == LoadedDocument(
        "Time off", "", (Section("", "Everyone has 26 days."), Section("Leave > Carry over", "Five days move on."))
    )


def styled(body: str) -> bytes:
    return document(body, **{"word__styles.xml": STYLES})


def test_lists_and_tables_of_a_word_file_are_readable() -> None:
    item = '<w:numPr><w:ilvl w:val="{}"/><w:numId w:val="1"/></w:numPr>'
    cell = "<w:tc>{}</w:tc>"
    rows = [("City", "Rate"), ("Berlin | Mitte", "90")]
    table = "".join(f"<w:tr>{''.join(cell.format(paragraph(c)) for c in row)}</w:tr>" for row in rows)
    body = (
        paragraph("You need:")
        + paragraph("a badge", extra=item.format(0))
        + paragraph("a PIN", extra=item.format(1))
        + f"<w:tbl>{table}</w:tbl>"
    )
    assert load("need.docx", styled(body)).sections[0].text == (
        "You need:\n\n- a badge\n  - a PIN\n\n| City | Rate |\n| Berlin / Mitte | 90 |"
    )


def test_tables_within_cells_of_a_word_file_are_read_once_below_their_table() -> None:
    def table(*rows: Sequence[str]) -> str:
        written = "".join(f"<w:tr>{''.join(f'<w:tc>{cell}</w:tc>' for cell in row)}</w:tr>" for row in rows)
        return f"<w:tbl>{written}</w:tbl>"

    inner = table([paragraph("x"), paragraph("y")])
    body = table(
        [paragraph("City"), paragraph("Days")],
        [paragraph("Rome"), inner + paragraph("28")],
        [paragraph("Oslo"), f"<w:sdt><w:sdtContent>{paragraph('25')}</w:sdtContent></w:sdt>"],
    )
    assert load("x.docx", document(body)).sections[0].text == (
        "| City | Days |\n| Rome | 28 |\n| Oslo | 25 |\n\n| x | y |"
    )


def test_text_that_was_moved_in_a_word_file_stands_only_where_it_went() -> None:
    run = "<w:r><w:t>Five days.</w:t></w:r>"
    body = f"<w:p><w:moveFrom>{run}</w:moveFrom></w:p>{paragraph('Then')}<w:p><w:moveTo>{run}</w:moveTo></w:p>"
    assert load("x.docx", document(body)).sections[0].text == "Then\n\nFive days."


def test_links_of_a_word_file_keep_their_address_and_deleted_text_is_gone() -> None:
    body = (
        '<w:p><w:r><w:t xml:space="preserve">See </w:t></w:r><w:hyperlink r:id="rId1"><w:r><w:t>the form</w:t></w:r>'
        "</w:hyperlink><w:del><w:r><w:delText>old</w:delText></w:r></w:del>"
        "<w:ins><w:r><w:t>, please.</w:t></w:r></w:ins></w:p>"
    )
    rels = (
        '<Relationships><Relationship Id="rId1" TargetMode="External" Target="https://x.example/a_b?q=1&amp;c=2"/>'
        "</Relationships>"
    )
    assert (
        load("x.docx", linked(body, rels)).sections[0].text == "See the form (https://x.example/a_b?q=1&c=2), please."
    )


def linked(body: str, rels: str) -> bytes:
    out = io.BytesIO(document(body))
    with zipfile.ZipFile(out, "a") as made:
        made.writestr("word/_rels/document.xml.rels", rels)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.pdf", b"%PDF-1.4 and then nothing", "broken PDF"),
        ("a.pdf", b"", "broken PDF"),
        ("a.pdf", pdf_of([]), "no text that can be read"),
        ("a.pdf", locked(), "locked with a password"),
        ("a.docx", b"PK\x03\x04 torn", "broken Word document"),
        ("a.docx", document("<w:p>", x=""), "broken Word document"),
        ("a.docx", document("<w:p/>"), "holds no text"),
        ("a.docx", document("", **{"docProps__core.xml": '<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'}), "entities"),
    ],
)
def test_files_that_cannot_be_read_give_one_sentence(name: str, content: bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        load(name, content)
    assert "\n" not in str(caught.value)


def test_a_word_file_that_unpacks_to_gigabytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docx, "LARGEST", 10_000)
    with pytest.raises(UserError, match="larger than"):
        load("bomb.docx", document(paragraph("0" * 50_000)))


@given(st.binary(max_size=200), st.integers(0, 1500))
@settings(max_examples=60)
def test_no_damage_breaks_the_loaders(noise: bytes, at: int) -> None:
    """A damaged file gives its text or a sentence, never anything else."""
    for read, whole in ((pdf.read, pdf_of(LEAVE)), (docx.read, styled(paragraph("Words.")))):
        try:
            _, found = read("x", whole[:at] + noise + whole[at + len(noise) :])
        except UserError:
            continue
        assert all(text.strip() for _, text in found)


class OneWord:
    """Every text is the same to it."""

    name = "one"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.ones((len(texts), 4), dtype=np.float32) / 2

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]


def test_a_folder_of_all_kinds_goes_in_and_the_broken_ones_are_named(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "leave.pdf").write_bytes(pdf_of(LEAVE))
    (folder / "word.docx").write_bytes(styled(paragraph("Words.")))
    (folder / "faq.csv").write_text("question,answer\nWho pays?,The company.\n")
    (folder / "torn.docx").write_bytes(b"PK")
    (folder / "slides.pptx").write_bytes(b"PK")
    database = Database(home)
    result = ingest(database, OneWord(), [folder])
    assert (result.documents, {Path(f.path).name for f in result.failed}) == (3, {"torn.docx", "slides.pptx"})
    assert documents.counts(database) == (3, 4)
