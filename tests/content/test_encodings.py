"""Texts in all encodings that people have, declared well, badly or not at all."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from paise2nb.content.extract import documents, pages, rtf, text
from paise2nb.content.extract.text import SAMPLE, codec_of, declarations, decode
from paise2nb.content.extract.types import media_type
from paise2nb.core.errors import PermanentError
from paise2nb.plugins import Source

GERMAN = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. " * 20
JAPANESE = "いろはにほへと ちりぬるを 我が世誰ぞ 常ならむ。" * 20
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 20


@pytest.mark.parametrize(
    ("data", "declared", "expected"),
    [
        (GERMAN.encode(), None, GERMAN),
        (GERMAN.encode(), "iso-8859-1", GERMAN),  # UTF-8 that is valid is UTF-8
        (GERMAN.encode("latin-1"), "ISO-8859-1", GERMAN),
        ("“quoted” – €".encode("cp1252"), "iso-8859-1", "“quoted” – €"),
        (GERMAN.encode("utf-8-sig"), "iso-8859-1", GERMAN),
        (GERMAN.encode("utf-16"), None, GERMAN),
        (GERMAN.encode("utf-16-le"), "utf-16le", GERMAN),
        (b"\xfe\xff" + GERMAN.encode("utf-16-be"), "utf-8", GERMAN),
        (GERMAN.encode("utf-32"), None, GERMAN),
        (JAPANESE.encode("shift_jis"), "Shift_JIS", JAPANESE),
        (JAPANESE.encode("euc_jp"), "x-euc-jp", JAPANESE),
        (RUSSIAN.encode("cp1251"), "x-nonsense", RUSSIAN),
        (JAPANESE.encode("iso2022_jp"), "iso-2022-jp", JAPANESE),
        ("中文网页".encode("gb18030"), "gb2312", "中文网页"),
        (RUSSIAN.encode("koi8-r"), "koi8-r", RUSSIAN),
        (RUSSIAN.encode("cp1251"), None, RUSSIAN),
        (RUSSIAN.encode("cp1251"), "utf-8", RUSSIAN),  # a wrong declaration
        (JAPANESE.encode("euc_jp") + b"\xff", "euc-jp", JAPANESE + "\ufffd"),
        (GERMAN.encode() + b"\xff", "utf-8", GERMAN + "\ufffd"),
        (b"", None, ""),
        (b"plain", "base64", "plain"),
    ],
)  # fmt: skip
def test_the_character_set_is_detected(data: bytes, declared: str | None, expected: str) -> None:
    assert decode(data, declared) == expected


@pytest.mark.parametrize(
    "declaration",
    [
        '<meta charset="windows-1251">',
        "<META http-equiv=Content-Type content='text/html; charset=windows-1251'>",
        '<?xml version="1.0" encoding="windows-1251"?>',
    ],
)
def test_the_character_set_that_a_page_declares_is_used(declaration: str) -> None:
    page = f"{declaration}<p>мир</p>"
    assert decode(page.encode("cp1251")) == page
    assert decode(page.encode("cp1251"), "cp1251") == page
    assert decode(page.encode(), "cp1251") == page


POLISH = "Zażółć gęślą jaźń, a potem pójdź, kiń tę chmurność w głąb flaszy. "
ENGLISH = "The keeper of the light wrote down the wind and the height of the sea each night. "


# UTF-8 with a stray byte ---------------------------------------------------------------------


@pytest.mark.parametrize("stray", [b"\x85", b"\xe9", b"\xc3", b"\xff"])
@pytest.mark.parametrize("declared", [None, "utf-8", "iso-8859-1", "shift_jis"])
def test_utf8_with_a_stray_byte_stays_utf8(stray: bytes, declared: str | None) -> None:
    data = "“Déjà vu”, she said. ".encode() + stray + b" and more"
    assert decode(data, declared).startswith("“Déjà vu”, she said. \ufffd")


def test_a_short_legacy_text_is_no_broken_utf8() -> None:
    for sample in ("Le bébé dort.", "£20", "Fahrräder, Öl", "naïve", "«Да»"):
        encoding = "cp1251" if "Д" in sample else "cp1252"
        top = "ru" if "Д" in sample else "uk"
        url = f"https://example.{top}/"
        assert decode(sample.encode(encoding), None, url) == sample
        assert decode(sample.encode(encoding), "utf-8", url) == sample


# Detection -----------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 70_000, 1_000_000])
def test_the_evidence_may_come_late(before: int) -> None:
    filler = ENGLISH * (before // len(ENGLISH))
    for sample, encoding in [("café, naïve", "cp1252"), (RUSSIAN, "cp1251"), (JAPANESE, "cp932")]:
        assert decode((filler + sample).encode(encoding)) == filler + sample


def test_a_copyright_sign_at_the_top_does_not_hide_what_follows() -> None:
    data = b"\xa9 2020 " + ENGLISH.encode() * 2000 + RUSSIAN.encode("cp1251")
    assert decode(data).endswith(RUSSIAN)


def test_few_letters_are_western_unless_the_page_or_its_host_says_otherwise() -> None:
    data = "<p>chmurność</p>".encode("cp1250")
    assert decode(data) == "<p>chmurnoœæ</p>"
    assert decode(data, None, "https://example.pl/") == "<p>chmurność</p>"
    assert decode(b"<html lang=pl-PL>" + data) == "<html lang=pl-PL><p>chmurność</p>"
    page = b'<meta content="pl" http-equiv="Content-Language">' + data
    assert decode(page, None, "https://example.com/").endswith("<p>chmurność</p>")


def test_an_undeclared_7_bit_encoding_is_found_and_terminal_colours_are_none() -> None:
    assert decode(JAPANESE.encode("iso2022_jp")) == JAPANESE
    colours = "\x1b[31mred\x1b[0m grün"
    assert decode(colours.encode()) == colours


def test_detection_takes_little_time_for_a_large_file() -> None:
    began = time.process_time()
    decode(RUSSIAN.encode("cp1251") * 10_000)  # 12 MB
    decode(b"a" * (12 << 20) + b"\xe9")
    assert time.process_time() - began < 20  # a bound for quadratic work only
    assert SAMPLE < 1 << 16


LANGUAGES = {
    "cs": "Příliš žluťoučký kůň úpěl ďábelské ódy, než zmizel za kopcem. ",
    "de": GERMAN, "ru": RUSSIAN, "ja": JAPANESE, "pl": POLISH,
    "el": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία, λέει ο γέρος ψαράς. ",
    "tr": "Pijamalı hasta yağız şoföre çabucak güvendi ve yola çıktı. ",
    "he": "דג סקרן שט בים מאוכזב ולפתע מצא לו חברה נעימה. ",
    "ar": "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر. ",
    "th": "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน ",
    "ko": "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다. ",
    "zh": "我能吞下玻璃而不伤身体,这句话常常用来检查字体。",
    "hu": "Árvíztűrő tükörfúrógép, mondta a kőműves, és elindult a hídon. ",
}  # fmt: skip
USUAL = {
    "cs": ["cp1250", "iso8859-2"], "de": ["cp1252"], "ru": ["cp1251", "koi8-r", "cp866"],
    "ja": ["cp932", "euc_jp", "iso2022_jp"], "pl": ["cp1250", "iso8859-2"],
    "el": ["cp1253", "iso8859-7"], "tr": ["cp1254"], "he": ["cp1255"], "ar": ["cp1256"],
    "th": ["cp874"], "ko": ["cp949"], "zh": ["gb18030"], "hu": ["cp1250", "iso8859-2"],
}  # fmt: skip
TOP = dict(
    zip(
        LANGUAGES,
        ["cz", "de", "ru", "jp", "pl", "gr", "tr", "il", "sa", "th", "kr", "cn", "hu"],
        strict=True,
    )
)


@pytest.mark.parametrize("language", LANGUAGES)
def test_undeclared_text_is_read_by_its_language(language: str) -> None:
    sample = (LANGUAGES[language] * 20)[:400]
    for encoding in USUAL[language]:
        page = f"<html lang={language}><p>{sample}"
        assert decode(page.encode(encoding)) == page, encoding
        assert decode(sample.encode(encoding), None, f"https://a.{TOP[language]}/") == sample


# Declarations --------------------------------------------------------------------------------


LABELS = Path(__file__).parents[1] / "data" / "labels.txt"  # the encoding standard, section 4.2
ALPHABETS = ("いろはにほへと", "안녕하세요 한국", "你好中国朋友", "Съешь же ещё", "Zażółć gęślą",
             "où déjà, çà", "på øen", "شكرا جزيلا لك", "λόγος και έργο", "שלום לכולם",
             "ภาษาไทยง่าย")  # fmt: skip


def test_every_label_of_the_standard_has_the_encoding_that_browsers_use() -> None:
    table = dict(line.split(": ") for line in LABELS.read_text("utf-8").splitlines())
    every = " ".join(table.values()).split()
    assert len({*every, "iso-2022-cn", "iso-2022-cn-ext", "replacement"}) == len(every) + 3 == 228
    for codec, names in table.items():
        assert {codec_of(f" {label.upper()}\n") for label in names.split()} == {codec_of(codec)}
        if codec == "x-user-defined":
            continue
        written = [a for a in ALPHABETS if a.encode(codec, "ignore").decode(codec) == a]
        sample = f"<p>{written[0]}</p>"
        for label in names.split():
            assert decode(sample.encode(codec), label) == sample
    assert (codec_of("base64"), codec_of("\0"), codec_of("replacement")) == (None, None, None)
    assert "①".encode("euc_jis_2004").decode(codec_of("euc-jp") or "") == "①"


def test_user_defined_bytes_are_private_characters_unless_the_page_itself_declares_them() -> None:
    assert decode(b"a\x80\xff", "x-user-defined") == "a\uf780\uf7ff"
    page = "<meta charset=x-user-defined><p>café</p>"  # the standard: then it is windows-1252
    assert decode(page.encode("cp1252")) == page


def test_shifted_text_is_read_by_its_label_and_never_as_gibberish() -> None:
    assert decode("<p>你好中国</p>".encode("hz"), "HZ-GB-2312") == "<p>你好中国</p>"
    assert decode("한국어".encode("iso2022_kr"), "iso-2022-kr") == "한국어"
    for label in (None, "utf-8", "utf-16", "replacement"):
        assert decode(b"a ~{ b ~} c", label) == "a ~{ b ~} c"
    assert decode("~{ grün \x1b[0m".encode(), "iso-8859-1") == "~{ grün \x1b[0m"
    with pytest.raises(PermanentError, match="encoded as iso-2022-cn") as caught:
        decode(b"\x1b$)A\x0e=;;;\x1b", "ISO-2022-CN", "https://example.cn/")
    assert caught.value.error_class == "unsupported"


@pytest.mark.parametrize(
    ("head", "label"),
    [
        ('<!-- <meta charset="koi8-r"> --><meta charset="windows-1251">', "windows-1251"),
        ("<!-- <meta charset=koi8-r>", ""),
        ("<title><meta charset=windows-1251>", "windows-1251"),
        ("<div title='<meta charset=koi8-r>'><meta charset=cp1251>", "cp1251"),
        ('<meta content="text/html; charset=cp1251" http-equiv=content-type>', "cp1251"),
        ('<meta name=x content="text/html; charset=koi8-r"><meta charset=cp1251>', "cp1251"),
        ("<META/CHARSET = 'cp1251'/>", "cp1251"),
        ("<meta charset=cp1251 charset=koi8-r>", "cp1251"),
        ("<meta charset=utf-16le>", "utf-8"),
        ("<metadata charset=koi8-r><a charset=koi8-r>", ""),
        (f"<script>{'var a = 1;' * 900}</script><meta charset=cp1251>", "cp1251"),
        (' <?xml version="1.0" encoding="koi8-r"?><meta charset=cp1251>', "koi8-r"),
    ],
)
def test_the_declaration_is_found_as_browsers_find_it(head: str, label: str) -> None:
    assert declarations(head.encode())[0] == label


def test_hostile_declarations_cause_no_backtracking() -> None:
    for part in (b"<meta '", b"<!--", b"<a \"'", b"<meta charset", b"<?xml ", b"< <!", b"\xe9<"):
        declarations(part * 20_000)
        decode(part * 20_000 + b"\xe9")


# RTF -----------------------------------------------------------------------------------------


def escaped(sample: str, codec: str) -> str:
    return "".join(
        chr(byte) if byte < 128 and chr(byte) not in "{}\\" else f"\\'{byte:02x}"
        for byte in sample.encode(codec)
    )


@pytest.mark.parametrize(
    ("head", "codec", "sample"),
    [
        ("\\ansi\\ansicpg1251{\\fonttbl{\\f0 A;}}\\f0 ", "cp1251", "Прилив и отлив"),
        ("\\ansi\\ansicpg1252{\\fonttbl{\\f0 A;}{\\f1\\fcharset204 B;}}\\f1 ", "cp1251", "Прилив"),
        ("\\ansi\\ansicpg1252{\\fonttbl{\\f3\\fcharset238 B;}}{\\f3 ", "cp1250", "Žluťoučký kůň}"),
        ("\\ansi{\\fonttbl{\\f0\\fcharset128 A;}}\\f0 ", "cp932", "日本語テスト ab"),
        ("\\ansi{\\fonttbl{\\f0\\fcharset134 A;}}\\f0 ", "gbk", "中文网页"),
        ("\\mac{\\fonttbl{\\f0 A;}}\\f0 ", "mac-roman", "Café – Öl"),
        ("\\pc{\\fonttbl{\\f0 A;}}\\f0 ", "cp437", "Café"),
    ],
)
def test_rtf_is_read_by_its_code_pages(head: str, codec: str, sample: str) -> None:
    body = escaped(sample.rstrip("}"), codec) + "}" * sample.endswith("}")
    for content in (body.encode(), body.replace(" ", "\\par ").encode()):
        data = b"{\\rtf1" + head.encode() + content + b"\\par}"
        document = documents.read(data, Source("u", "application/rtf"))
        assert document.text.split() == sample.rstrip("}").split()


def test_unicode_escapes_of_rtf_keep_their_substitutes_and_pictures_their_bytes() -> None:
    for kept in (
        rb"{\rtf1\ansi\uc1 \u1052\'cc\u1080?}", rb"{\rtf1\uc2 \u-3913\'a1\'a1x}",
        b"{\\rtf1{\\pict\\bin4 \xff\xfe\x80{}plain}", b"{\\rtf1 \\", b"", b"}}{",
    ):  # fmt: skip
        assert rtf.with_unicode(kept) == kept
    assert rtf.with_unicode(b"{\\uc0 caf\xe9 1}") == b"{\\uc0 caf\\u233  1}"


def test_a_text_file_is_read_with_the_help_of_its_host() -> None:
    data = "Hęś kąt".encode("cp1250")
    assert text.read(data, Source("https://example.pl/a.txt", "text/plain")).text == "Hęś kąt"


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("words", ["größer words", "x"])
def test_utf_16_without_a_mark_is_text(codec: str, words: str) -> None:
    data = words.encode(codec)
    assert decode(data) == words
    assert media_type("text/plain", data) == "text/plain"
    assert media_type(None, data, ".txt") == "text/plain"
    page = f"<html lang='de'><body><p>{words}</p></body></html>".encode(codec)
    assert pages.read(page, Source("https://example.org/a", "text/html", "utf-8")).text == words


def test_bytes_with_zeros_are_no_text() -> None:
    assert media_type("text/plain", bytes(range(8)) * 9) == "application/octet-stream"
    assert media_type("text/plain", b"\x00\x00\x00\x01" * 9) == "application/octet-stream"
