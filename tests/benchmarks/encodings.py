"""Texts without a declared encoding: ``python -m tests.benchmarks.encodings ROOT``.

ROOT contains real texts in many languages: the manual pages and message catalogues of Debian
packages, unpacked, for example::

    apt-get download manpages-de manpages-ja manpages-ru … apt libgtk-3-common
    for file in *.deb; do dpkg-deb -x "$file" ROOT; done

Pieces of each are encoded in the usual encodings of the language and decoded again. The table has
the share that came out right: undeclared, with the page's language, and by charset_normalizer if
it is installed. Exit status 1 if less than 95 % of all pieces of 400 characters were right.
"""

from __future__ import annotations

import gettext
import gzip
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from paise2nb.content.extract.text import decode

LENGTHS = (20, 100, 400, 2000)  # characters
PIECES = 30  # of each language, encoding and length
ENCODINGS = {
    "ar": "cp1256", "bg": "cp1251", "cs": "cp1250 iso8859-2", "da": "cp1252", "de": "cp1252",
    "el": "cp1253 iso8859-7", "es": "cp1252", "fi": "cp1252", "fr": "cp1252 iso8859-15",
    "he": "cp1255", "hu": "cp1250 iso8859-2", "it": "cp1252", "ja": "cp932 euc_jp iso2022_jp",
    "ko": "cp949", "lt": "cp1257", "nl": "cp1252", "pl": "cp1250 iso8859-2", "pt_BR": "cp1252",
    "ro": "cp1250", "ru": "cp1251 koi8-r cp866", "sv": "cp1252", "th": "cp874", "tr": "cp1254",
    "uk": "cp1251 koi8-u", "vi": "cp1258", "zh_CN": "gb18030", "zh_TW": "big5",
}  # fmt: skip
MARKUP = re.compile(r"^[.'].*$|\\f.|\\[\w(*][^\s]*|%[\w.$]+|[_~<>]", re.MULTILINE)


def text_of(root: Path, language: str) -> str:
    """The text of the manual pages and message catalogues of a language, without most markup."""
    found = []
    for page in sorted(root.glob(f"usr/share/man/{language}/man*/*.gz")):
        found += gzip.decompress(page.read_bytes()).decode("utf-8", "replace").split("\n")
    for catalogue in sorted(root.glob(f"usr/share/locale/{language}/LC_MESSAGES/*.mo")):
        with catalogue.open("rb") as file:
            messages = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        found += [text for key, text in messages.items() if key and isinstance(text, str)]
    lines = (" ".join(MARKUP.sub(" ", line).split()) for line in found)
    return " ".join(line for line in lines if len(line) > 20 and not line.isascii())


def pieces(text: str, encoding: str, length: int) -> Iterator[tuple[bytes, str]]:
    """Random pieces that the encoding can represent and ASCII can't, as bytes and text."""
    choose = random.Random(f"{encoding} {length}")
    for _ in range(PIECES if len(text) > length else 0):
        start = choose.randrange(len(text) - length)
        data = text[start : start + length].encode(encoding, "ignore")
        if not data.isascii() or encoding.startswith("iso2022"):
            yield data, data.decode(encoding)


def normalizer(data: bytes) -> str:
    """The peer."""
    from charset_normalizer import from_bytes

    best = from_bytes(data).best()
    return data.decode((best.encoding if best else None) or "cp1252", "replace")


def main(root: Path) -> int:
    """Print the table."""
    ways: dict[str, Callable[[bytes, str], str]] = {
        "undeclared": lambda data, language: decode(data),
        "language": lambda data, language: decode(
            f"<html lang={language.replace('_', '-')}>".encode() + data
        ).partition(">")[2],
    }
    if find_spec("charset_normalizer"):
        ways["charset_normalizer"] = lambda data, language: normalizer(data)
    totals = {(way, length): [0, 0] for way in ways for length in LENGTHS}
    seconds = dict.fromkeys(ways, 0.0)
    print("language encoding   " + "  ".join(f"{n:>4} {way[:10]}" for way in ways for n in LENGTHS))
    for language, encodings in ENCODINGS.items():
        text = text_of(root, language)
        for encoding in encodings.split():
            cells = []
            for way, read in ways.items():
                for length in LENGTHS:
                    right = number = 0
                    for data, truth in pieces(text, encoding, length):
                        began = time.perf_counter()
                        right += read(data, language) == truth
                        seconds[way] += time.perf_counter() - began
                        number += 1
                    totals[way, length][0] += right
                    totals[way, length][1] += number
                    cells.append(f"{right / number:.2f}" if number else "-")
            print(f"{language:8} {encoding:10} " + " ".join(f"{cell:>15}" for cell in cells))
    print("\nall of them")
    for (way, length), (right, number) in totals.items():
        print(f"{way:20} {length:5} characters: {right / max(number, 1):.3f} of {number}")
    done = sum(number for (way, _), (_, number) in totals.items() if way == "language")
    print({way: f"{total / max(done, 1) * 1000:.2f} ms" for way, total in seconds.items()})
    right, number = totals["language", 400]
    return int(right < 0.95 * number or not number)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
