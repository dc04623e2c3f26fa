"""Prompts as people write them: a style, maybe a mood, and nouns that say nothing about how the picture should look."""

import random
from typing import Final

from training.words import ADJECTIVES, MOOD_WORDS, NOUNS, PLACES, STYLE_WORDS, SYLLABLES, emoji_names

__all__ = ["prompt"]

EMOJI_NAMES: Final = emoji_names()
DRAWN: Final = ("drawing", "paint", "photo", "sketch", "comic", "mosaic", "window", "blueprint", "picture")
ORNAMENTS: Final = ("high quality", "masterpiece", "detailed", "4k", "trending", "beautiful")
# What stands around the style's word s and the noun n, and how often.
FRAMES: Final = (
    (16, "{s}"),
    (5, "{s} style"),
    (3, "in the style of {s}"),
    (12, "{a_s} of {n}"),
    (10, "{s} {n}"),
    (8, "{n}, {s}"),
    (8, "{n}, {s} style"),
    (6, "{n} in {s}"),
    (6, "{n} in {s} style"),
    (8, "{s} of {n}"),
    (4, "{n} in the style of {s}"),
    (4, "{n} in the style of {a_s}"),
    (5, "{s}, {n}"),
    (1, "make it {s}"),
    (1, "turn this into {a_s}"),
    (1, "{n} as {a_s}"),
    (1, "{s} art, {n}"),
    (1, "please draw {n} as {s}"),
)
PLAIN_FRAMES: Final = ("{n}", "{n}", "a picture of {n}", "an image of {n}", "{n}, highly detailed")
MOOD_FRAMES: Final = (
    (40, "{b}, {m}"),
    (15, "{m} {b}"),
    (7, "{b} at {m}"),
    (7, "{b} in {m}"),
    (6, "{b} with {m}"),
    (10, "{m}, {b}"),
    (5, "{b}, {m} mood"),
    (5, "{b}, {m} colors"),
    (5, "{b}, {m} light"),
)
# A mood that begins with a preposition already.
PLACED_MOOD_FRAMES: Final = ((60, "{b} {m}"), (25, "{b}, {m}"), (15, "{m}, {b}"))


def prompt(style: str, mood: str, dice: random.Random) -> str:
    """One prompt that asks for `style` and `mood`; a photo without a mood often has no word of style at all."""
    noun = _noun(dice)
    if style == "photo" and dice.random() < 0.55:
        text = dice.choice(PLAIN_FRAMES).format(n=noun)
    else:
        word = dice.choice(STYLE_WORDS[style])
        frame = _one_of(FRAMES, dice)
        with_article = _article(word) if any(sign in word for sign in DRAWN) else word
        text = frame.format(s=word, a_s=with_article, n=noun)
    if mood != "none":
        word = dice.choice(MOOD_WORDS[mood])
        placed = word.split()[0] in ("at", "in", "by")
        text = _one_of(PLACED_MOOD_FRAMES if placed else MOOD_FRAMES, dice).format(b=text, m=word)
    if dice.random() < 0.12:
        text += f", {dice.choice(ORNAMENTS)}"
    if dice.random() < 0.1:
        text = dice.choice(("a beautiful ", "nice ", "my ", "create ", "draw ")) + text
    return text.capitalize() if dice.random() < 0.15 else text


def _noun(dice: random.Random) -> str:
    kind = dice.random()
    if kind < 0.55:
        noun = dice.choice(NOUNS)
    elif kind < 0.8:
        noun = dice.choice(EMOJI_NAMES)
    else:  # A word that is in no list: what is not known must change nothing.
        noun = "".join(dice.choices(SYLLABLES, k=dice.randint(2, 4)))
    around = dice.random()
    if around < 0.35:
        noun = f"{dice.choice(ADJECTIVES)} {noun}"
    elif around < 0.45:
        noun = f"{noun} and {_article(dice.choice(NOUNS))}"
    around = dice.random()
    if around < 0.7:
        noun = _article(noun)
    elif around < 0.8:
        noun = f"the {noun}"
    return f"{noun} {dice.choice(PLACES)}" if dice.random() < 0.2 else noun


def _article(word: str) -> str:
    return ("an " if word[0] in "aeiou8" else "a ") + word


def _one_of(weighted: tuple[tuple[int, str], ...], dice: random.Random) -> str:
    return dice.choices([text for _, text in weighted], [weight for weight, _ in weighted])[0]
