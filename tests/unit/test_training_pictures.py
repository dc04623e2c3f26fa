"""The bundled model is trained on nothing that somebody might not have given away."""

import re
from pathlib import Path

from training.pictures import LIST, sources
from training.words import MOOD_WORDS, STYLE_WORDS

ROOT = Path(__file__).parents[2]
FREE = {"CC0-1.0", "CC0-1.0 and public domain", "CC-BY-2.0", "CC-BY-4.0", "MIT", "Apache-2.0"}
"""Licences that allow everything but forgetting the author."""


def test_every_source_says_its_licence_author_and_origin() -> None:
    listed = sources()
    assert len(listed) > 10
    assert {source.licence for source in listed} <= FREE
    assert all(source.by and source.origin and source.files and source.package for source in listed)


def test_packages_are_pinned_to_the_version_whose_licence_was_read() -> None:
    assert [
        source.name for source in sources() if not source.version and not source.package.startswith("repository:")
    ] == []


def test_the_picture_without_a_licence_is_out() -> None:
    assert "motorcycle" not in LIST.read_text()


def test_sample_pictures_of_the_repository_are_never_trained_on() -> None:
    (ours,) = [source for source in sources() if source.package == "repository:images"]
    assert ours.held_out == ours.files == ("*.jpg",)
    trained_on = " ".join(name for source in sources() if not source.held_out for name in source.files)
    # images/README.md says that they are cut from these files of scikit-image.
    assert re.findall("astronaut|chelsea|coffee|hubble|rocket", trained_on) == []


def test_the_models_card_names_every_source() -> None:
    card = (ROOT / "src/sfumato/models/bundled/restyle/README.md").read_text()
    missing = [source.name for source in sources() if f"| {source.name} |" not in card]
    assert missing == []


def test_no_word_means_two_styles_or_moods() -> None:
    known = [word for words in (*STYLE_WORDS.values(), *MOOD_WORDS.values()) for word in words]
    assert len(known) == len(set(known))
