"""The words that the bundled model knows: names and synonyms of its styles and moods, and nouns that it must ignore."""

import unicodedata
from typing import Final

__all__ = ["ADJECTIVES", "MOODS", "MOOD_WORDS", "NOUNS", "PLACES", "STYLES", "STYLE_WORDS", "SYLLABLES", "emoji_names"]


def _split(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


STYLE_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "photo": _split("photo, photograph, picture, realistic photo, clean photo, photorealistic, realistic, snapshot"),
    "watercolor": _split(
        "watercolor, watercolour, watercolor painting, aquarelle, water color, watercolor wash, watercolour painting, "
        "watercolor sketch"
    ),
    "oil": _split(
        "oil painting, oil paint, oil on canvas, painted in oils, impasto, van gogh, impressionist painting, painting, "
        "brush strokes, painterly, acrylic painting, oil"
    ),
    "pencil": _split(
        "pencil sketch, pencil drawing, pencil, graphite, sketch, charcoal drawing, hand drawn sketch, crosshatching, "
        "pencil shading, drawing"
    ),
    "ink": _split(
        "ink drawing, ink, line art, black and white line art, pen and ink, black ink, lineart, woodcut, linocut, "
        "manga, stencil"
    ),
    "pixel": _split("pixel art, pixelart, 8-bit, 8 bit, 16-bit game, pixelated, retro game, pixel, minecraft, pixels"),
    "mosaic": _split("mosaic, tile mosaic, roman mosaic, mosaic tiles, ceramic tiles, tiles, byzantine mosaic"),
    "stained": _split(
        "stained glass, stained glass window, stained-glass, church window, leaded glass, glass window, cathedral glass"
    ),
    "comic": _split(
        "comic, comic book, pop art, popart, cartoon, halftone, comics, graphic novel, roy lichtenstein, cel shaded, "
        "comic strip, anime"
    ),
    "lowpoly": _split(
        "low poly, lowpoly, low-poly, polygon art, triangles, geometric, polygonal, origami, low poly 3d render"
    ),
    "neon": _split("neon, neon lights, neon sign, glowing neon, cyberpunk, glowing lines, synthwave, neon glow, tron"),
    "crossstitch": _split(
        "cross stitch, cross-stitch, embroidery, knitted, knit, needlework, stitched, wool, crossstitch, tapestry"
    ),
    "pointillism": _split(
        "pointillism, pointillist, seurat, dots, dot painting, pointillist painting, painted with dots, stippling"
    ),
    "blueprint": _split(
        "blueprint, technical drawing, architectural drawing, cyanotype blueprint, blue print, engineering drawing, "
        "schematic, technical plan"
    ),
    "sepia": _split(
        "sepia, sepia photograph, sepia tone, vintage photo, old photo, antique photo, sepia photo, old photograph, "
        "retro photo"
    ),
    "bw": _split(
        "black and white photo, monochrome, grayscale, greyscale, black and white photograph, b&w photo, noir, "
        "monochrome photo, black and white"
    ),
}
MOOD_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "none": (),
    "sunset": _split(
        "sunset, at sunset, sunset colors, dusk, sunrise, at dusk, evening light, sunset light, pink and orange sky, "
        "red sky, dawn"
    ),
    "night": _split(
        "night, at night, moonlight, moonlit, midnight, by night, dark, night scene, night sky, starry night"
    ),
    "autumn": _split(
        "autumn, in autumn, fall colors, autumn leaves, fall, autumn colors, autumnal, in the fall, october"
    ),
    "winter": _split("winter, in winter, snowy, frozen, icy, cold, snow, frosty, wintry, ice"),
    "pastel": _split(
        "pastel, spring, pastel colors, in spring, soft colors, pastel tones, soft pastel, cherry blossom, springtime, "
        "candy colors"
    ),
    "vivid": _split(
        "vivid, vivid colors, vibrant, bright colors, colorful, saturated, bold colors, summer, rich colors, "
        "psychedelic"
    ),
    "golden": _split(
        "golden, gold, golden hour, golden light, in gold, gilded, golden tones, warm golden light, yellow"
    ),
    "blue": _split(
        "blue, blue tones, in blue, blue palette, all blue, underwater, ocean colors, blue monochrome, shades of blue, "
        "deep blue"
    ),
    "green": _split(
        "green, green tones, in green, green palette, emerald, forest green, jungle, matrix, shades of green, all green"
    ),
}
STYLES: Final = tuple(STYLE_WORDS)
MOODS: Final = tuple(MOOD_WORDS)

NOUNS: Final = _words(
    "house cat dog mountain lake tree city street flower rose garden forest sea beach boat ship car bus train "
    "bridge castle tower church village landscape portrait woman man girl boy face person child king robot dragon "
    "horse bird owl fish fox lion tiger bear rabbit elephant butterfly apple pear banana fruit bowl vase cup "
    "coffee teapot bread cake pizza table chair room window kitchen book guitar piano violin camera clock lamp "
    "shoe hat bicycle motorcycle airplane rocket astronaut planet moon sun star cloud sky rainbow river waterfall "
    "island desert hill field farm barn windmill lighthouse harbor market temple pagoda palace ruins skyline "
    "skyscraper road path fence door sunflower tulip leaf mushroom cactus palm heart balloon umbrella snowman "
    "ghost skull angel fairy wizard knight dancer soldier doctor smile eyes hands family friends couple crowd "
    "statue fountain bottle glass candle lantern fire wave storm rain kitten puppy panda penguin frog turtle snake "
    "shark whale dolphin bee snail monkey cow pig sheep chicken duck galaxy nebula galaxies spaceship superhero"
)
ADJECTIVES: Final = _words(
    "beautiful small big old little cute quiet lonely happy simple detailed elegant dreamy modern ancient tiny "
    "huge lovely calm wild cozy misty stylish nice red white black brown pink orange purple grey tall fast"
)
PLACES: Final = _split(
    "by the sea, on a hill, in a garden, near a lake, in the mountains, in a city, on a table, under the trees, "
    "with clouds, with a smile, in a field, on the street, in the park"
)
SYLLABLES: Final = _words(
    "ka ro mi ta le bu sho ran gel pi zo tun ver mo du lin ast er ing ton ly qua fra sti pho bra ne hu wo xi cle ba"
)


def emoji_names() -> tuple[str, ...]:
    """Everyday nouns from Unicode's own names of pictographs, but for those with a word that a style or mood has."""
    known = {word for words in (*STYLE_WORDS.values(), *MOOD_WORDS.values()) for word in " ".join(words).split()}
    points = (*range(0x1F300, 0x1F5FF), *range(0x1F600, 0x1F64F), *range(0x1F680, 0x1F6FF), *range(0x1F900, 0x1F9FF))
    names = (unicodedata.name(chr(point), "").lower() for point in points)
    return tuple(
        name
        for name in names
        if name and len(name) < 22 and name.replace(" ", "").isalpha() and not known & set(name.split())
    )
