"""The names of the members of a zip archive, which often don't say in which encoding they are."""

import re
import struct
import zipfile
import zlib
from contextlib import suppress

from paise2nb.content.extract.text import detected

_IS_UTF8 = 0x800  # the flag of a name
_UNICODE_PATH = 0x7075  # the extra field with a name in UTF-8: APPNOTE.TXT, section 4.6.9
_WESTERN, _CENTRAL = "àáâãäåæçèéêëíîïñóôõöøùúûüßœ", "áâäąćčçďéęěëíîłĺľńňóôőöřŕśšşťţúůűüýźžżăđß"
# The encodings of names in Latin letters, the more frequent ones first, with these letters.
_LATIN = {"cp437": _WESTERN, "cp1252": _WESTERN, "cp850": _WESTERN, "cp852": _CENTRAL,
          "cp1250": _CENTRAL}  # fmt: skip
# What no language has: the letters of another encoding.
_ODD = re.compile(
    "ê[aeiouy]|ï(?<![aeiou]ï)|à[b-rtvxyz]|õ(?![es])|ç[b-df-np-tv-z]|(?<![aeiouyäöü])ß|ø[áíý]"
    "|(?-i:[a-zß-ž][ÀÁÂÃÄÅÆÇÈÉÊËÍÎÏÑÓÔÕÖØÙÚÛÜĄĆČĎĘĚŁŃŇŐŘŚŠŤŮŰŹŽŻĂŞ]|[A-Z][ÆØÑ][a-z]|[ß-ž][A-Z])",
    re.IGNORECASE,
)


def names_of(members: list[zipfile.ZipInfo]) -> list[str]:
    """Decode the names of an archive: by flag, by extra field, or all others by one encoding.

    By the specification a name without the flag is in code page 437, but most programs write the
    encoding of the computer.
    """
    vague = [member for member in members if _is_vague(member)]
    codec = _codec(b"\n".join(map(_raw, vague))) if vague else "cp437"
    return [_name(member, codec) if _is_vague(member) else member.filename for member in members]


def _is_vague(member: zipfile.ZipInfo) -> bool:
    return not (member.flag_bits & _IS_UTF8 or member.filename.isascii())


def _raw(member: zipfile.ZipInfo) -> bytes:
    return member.orig_filename.encode("cp437")  # as zipfile decoded it


def _name(member: zipfile.ZipInfo, codec: str) -> str:
    raw, extra = _raw(member), member.extra
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and field[1:5] == struct.pack("<L", zlib.crc32(raw)):
            with suppress(UnicodeDecodeError):
                return field[5:].decode()
    with suppress(UnicodeDecodeError):
        return raw.decode(codec)
    return member.filename


def _codec(raw: bytes) -> str:
    """The encoding that fits names best."""
    with suppress(UnicodeDecodeError):
        raw.decode()
        return "utf-8"
    for codec, letters in _LATIN.items():
        text = raw.decode(codec, "replace")
        special = [letter for letter in text if not letter.isascii()]
        is_latin = all(letter.lower() in letters for letter in special) and not _ODD.search(text)
        # In words in Latin letters at least half of them are ASCII.
        if is_latin and 2 * len(special) <= sum(map(str.isalpha, text)):
            return codec
    found = detected(raw)
    return "cp437" if found == "cp1252" else found
