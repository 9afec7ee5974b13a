"""E-mail, mailboxes and saved pages: what a reader sees of them, each attachment an item."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from contextlib import suppress
from email.message import EmailMessage, MIMEPart
from pathlib import Path

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.content.extract import mail, outlook
from paise2nb.core.errors import PermanentError
from paise2nb.plugins import Document, Source
from tests import documents
from tests.hostile import damaged

SOURCE = Source("https://example.org/m.eml", "message/rfc822")
HEAD = "From: Ada <ada@example.org>\nSubject: Tides\n"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with paise2nb.open("test", data_dir=tmp_path / "data") as app:
        yield app


def stored(app: App, path: Path, data: bytes) -> dict[str, dict[str, object]]:
    """The items that a file becomes, by what follows its URL."""
    path.write_bytes(data)
    (job,) = app.enqueue_many("fetch", [str(path)], force=True)
    assert job.state == "completed", job.error
    rows = [app.store.get(row["id"]) for row in app.items().to_dicts()]
    return {str(row["url"]).removeprefix(path.as_uri()): row for row in rows if row}


def letter(subject: str = "Tides", text: str = "outer words") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"] = "Ada <ada@example.org>", "grace@example.org"
    message["Subject"], message["Message-ID"] = subject, f"<{len(subject)}@example.org>"
    message["Date"] = "Tue, 05 Mar 2024 09:00:00 +0100"
    message.set_content(text)
    return message


def read(data: bytes | str) -> Document:
    """The document of an e-mail without its attachments."""
    data = data if isinstance(data, bytes) else data.encode()
    return next(part for part in mail.parts(data, SOURCE) if isinstance(part, Document))


def attached(data: bytes | str) -> list[mail.Member]:
    data = data if isinstance(data, bytes) else data.encode()
    return [part for part in mail.parts(data, SOURCE) if isinstance(part, mail.Member)]


# Items ---------------------------------------------------------------------------------------


def test_an_email_and_each_of_its_attachments_are_items(app: App, tmp_path: Path) -> None:
    message = letter("Grüße vom Kai: 見積書")
    message.add_attachment("first words", filename="Bericht über Kisten.txt")
    message.add_attachment("second words", filename="Bericht über Kisten.txt")
    message.add_attachment(
        documents.docx("words of Word"), "application", "octet-stream", filename="notes.docx"
    )
    message.add_attachment(letter("Forwarded tides", "forwarded words"))
    found = stored(app, tmp_path / "m.eml", message.as_bytes())
    texts = {name: str(row["text"]).strip() for name, row in found.items()}
    outer, forwarded = texts.pop(""), texts.pop("!/Forwarded%20tides.eml")
    assert texts == {
        "!/Bericht%20%C3%BCber%20Kisten.txt": "first words",
        "!/2/Bericht%20%C3%BCber%20Kisten.txt": "second words",
        "!/notes.docx": "words of Word",
    }
    assert outer.endswith("outer words")
    assert "forwarded words" in forwarded
    row = found[""]
    assert (row["title"], row["author"]) == ("Grüße vom Kai: 見積書", "Ada")
    assert row["date"] == "2024-03-05T08:00:00+00:00"
    assert found["!/2/Bericht%20%C3%BCber%20Kisten.txt"]["title"] == "Bericht über Kisten.txt"
    assert app.status().to_dict()["pages"]["stored"] == 1


def test_attachments_are_versioned_and_can_be_extracted_again(app: App, tmp_path: Path) -> None:
    message = letter()
    message.add_attachment("first words", filename="a.txt")
    before = stored(app, tmp_path / "m.eml", message.as_bytes())
    changed = message.as_bytes().replace(b"first", b"other")
    after = stored(app, tmp_path / "m.eml", changed)
    assert {name: row["id"] for name, row in after.items()} == {
        name: row["id"] for name, row in before.items()
    }
    assert str(after["!/a.txt"]["text"]).strip() == "other words"
    job = app.enqueue("extract", after["!/a.txt"]["id"])
    assert [item.id for item in job.items] == [after["!/a.txt"]["id"]]
    job = app.enqueue("extract", after[""]["id"])
    assert {item.id for item in job.items} == {row["id"] for row in after.values()}


def test_a_mailbox_is_one_item_a_message(app: App, tmp_path: Path) -> None:
    first, second = letter("first", "From here\n>From there\nend"), letter("second")
    second.add_attachment(documents.docx("words of Word"), "application", "zip", filename="a.docx")
    box = b"".join(
        b"From ada@example.org Tue Mar  5 08:00:00 2024\n"
        + b"\n".join(
            b">" + line if line.lstrip(b">").startswith(b"From ") else line
            for line in message.as_bytes().split(b"\n")
        )
        + b"\n"
        for message in (first, second)
    )
    found = stored(app, tmp_path / "all.mbox", box)
    assert sorted(found) == [
        "!/5%40example.org.eml", "!/6%40example.org.eml",
        "!/6%40example.org.eml!/a.docx",
    ]  # fmt: skip
    text = str(found["!/5%40example.org.eml"]["text"])
    assert text.endswith("From here\n>From there\nend")
    assert app.status().to_dict()["pages"]["stored"] == 1
    # What was deleted or comes later does not change the names of the others.
    later = stored(app, tmp_path / "all.mbox", box[box.index(b"\nFrom ada") + 1 :] + box)
    assert {name: row["id"] for name, row in later.items()} == {
        name: row["id"] for name, row in found.items()
    }


def test_a_mailbox_of_thousands_of_messages_is_stored(app: App, tmp_path: Path) -> None:
    box = "".join(
        f"From - Tue Mar 05 08:00:0{n % 10} 2024\nSubject: {n}\n\nwords {n}\n\n"
        for n in range(12_000)
    )
    data = list(mail.messages(box.encode()))
    assert len({member.name for member in data}) == 12_000
    assert len(stored(app, tmp_path / "Inbox", box[:60_000].encode())) > 900


def test_a_message_is_known_without_a_suffix(app: App, tmp_path: Path) -> None:
    data = b"Return-path: <ada@example.org>\nEnvelope-to: b@example.org\nSubject: Tides\n\nwords"
    assert stored(app, tmp_path / "1709629200.M5P6.host", data)[""]["title"] == "Tides"


def test_a_message_that_can_not_be_read_hides_no_other(app: App, tmp_path: Path) -> None:
    deep = "Content-Type: multipart/mixed; boundary=a{0}\n\n--a{0}\n"
    texts = ["one", "".join(map(deep.format, range(2000))), "two"]
    line = "From a@b Tue Mar  5 08:00:00 2024\n"
    box = "\n".join(f"{line}Message-ID: <{n}>\n{text}\n" for n, text in enumerate(texts))
    found = stored(app, tmp_path / "all.mbox", box.encode())
    assert sorted(found) == ["!/0.eml", "!/2.eml"]
    (job,) = app.jobs(task="extract", all=True)
    assert "parts in parts, too deep" in job.result()["warning"]


def test_messages_with_the_same_id_are_both_kept() -> None:
    line = "From a@b Tue Mar  5 08:00:00 2024\n"
    box = f"{line}Message-ID: <a/b@c>\n\none\n\n{line}Message-ID: <a/b@c>\n\ntwo\n"
    names = [member.name for member in mail.messages(box.encode())]
    assert names[0] == "b@c.eml"
    assert names[1].startswith("b@c-")


def test_a_mailbox_keeps_a_first_message_without_a_line_of_its_own() -> None:
    data = b"Subject: a\n\none\n\nFrom x@example.org Tue Mar  5 09:00:00 2024\nSubject: b\n\ntwo\n"
    assert [member.data.split()[-1] for member in mail.messages(data)] == [b"one", b"two"]


def test_lines_that_nearly_begin_a_message_cost_little_time() -> None:
    data = b"From " + b"1:11 " * 400_000 + b"\nno header\n"
    assert len(list(mail.messages(data))) == 1


def test_an_attached_reply_is_an_item_whatever_its_language(app: App, tmp_path: Path) -> None:
    message = letter()
    message.add_attachment(letter("R: Riunione", "inner words"))
    rows = stored(app, tmp_path / "m.eml", message.as_bytes())
    assert "inner words" in str(rows["!/R%3A%20Riunione.eml"]["text"])


def test_an_email_in_an_archive_is_read_like_one_alone(app: App, tmp_path: Path) -> None:
    message = letter()
    message.add_attachment(documents.packed({"b.txt": "deep words"}), "application", "zip",
                           filename="b.zip")  # fmt: skip
    from tests.content.test_archives import zipped

    found = stored(app, tmp_path / "a.zip", zipped({"m.eml": message.as_bytes()}))
    assert sorted(found) == ["!/m.eml", "!/m.eml!/b.zip!/b.txt"]


def test_a_bomb_that_is_attached_does_not_cost_the_text(app: App, tmp_path: Path) -> None:
    from tests.content.test_archives import zipped

    message = letter()
    message.add_attachment(
        zipped({"a.txt": bytes(8 << 20)}), "application", "zip", filename="a.zip"
    )
    message.add_attachment("more words", filename="b.txt")
    found = stored(app, tmp_path / "m.eml", message.as_bytes())
    assert sorted(found) == ["", "!/b.txt"]
    (job,) = app.jobs(task="extract", all=True)
    assert "unpacks to more than" in job.result()["warning"]


# Text ----------------------------------------------------------------------------------------


def test_the_text_has_what_a_reader_sees_of_the_head() -> None:
    message = letter()
    message["Cc"] = "=?utf-8?q?J=C3=BCrgen=2C_Boss?= <j@example.org>"
    message.add_attachment(b"x", "image", "png", filename="tide.png")
    assert read(message.as_bytes()).text.split("\n") == [
        "From: Ada <ada@example.org>", "To: grace@example.org",
        "Cc: Jürgen, Boss <j@example.org>", "Date: Tue, 05 Mar 2024 09:00:00 +0100",
        "Subject: Tides", "Attachments: tide.png", "", "outer words",
    ]  # fmt: skip


def test_of_alternatives_the_one_with_more_words_is_taken() -> None:
    page = "<style>b {}</style><p>rich <b>w</b>ords in <i>HTML</i></p><script>x</script>"
    message = letter(text="Your program shows no HTML: https://example.org/a/b/c/d/e/f")
    message.add_alternative(page + " of the whole letter", "html")
    assert read(message.as_bytes()).text.endswith("rich words in HTML\nof the whole letter")
    message = letter(text="plain words")
    message.add_alternative("<img src='cid:1'>", "html")
    assert read(message.as_bytes()).text.endswith("plain words")


def test_an_email_in_html_alone_is_read() -> None:
    text = read(
        HEAD + "Content-Type: text/html; charset=utf-8\n\n<p>innerhtml tells the tides"
    ).text
    assert text.endswith("innerhtml tells the tides")
    assert "<p>" not in text


ENCODED = [
    ("quoted-printable", "utf-8", b"Gr=C3=B6=\n=C3=9Fe"),
    ("base64", "iso-8859-1", b"R3L232U="),
    ("8bit", "windows-1252", "Größe".encode("cp1252")),
    ("8bit", "us-ascii", "Größe".encode()),
    ("7bit", "utf-7", "Größe".encode("utf-7")),
    ("QUOTED-PRINTABLE", "x-mac-roman", b"Gr=9A=A7e"),
]


@pytest.mark.parametrize(("transfer", "charset", "body"), ENCODED)
def test_bodies_in_any_encoding_are_decoded(transfer: str, charset: str, body: bytes) -> None:
    head = (
        f"{HEAD}Content-Transfer-Encoding: {transfer}\nContent-Type: text/plain; charset={charset}"
    )
    assert read(head.encode() + b"\n\n" + body).text.endswith("Größe")


RUSSIAN = "Привет из далёкого города"
SUBJECTS = [
    (b"=?utf-8?b?R3LDtsOf?= =?utf-8?q?e_des?= Meers", "Größe des Meers"),
    (b"=?ISO-8859-1?Q?Gr=F6=DFe?=\n =?ISO-8859-1?Q?_des_Meers?=", "Größe des Meers"),
    (b"=?utf-8?q?Gr=C3?= =?utf-8?q?=B6=C3=9Fe?=", "Größe"),  # cut in a character
    (b"=?utf-8?b?44Ob?= =?utf-8?b?44O844Og?=", "ホーム"),
    (b"=?x-sjis?b?" + b"g3qBW4OA" + b"?=", "ホーム"),
    (b"=?iso-2022-jp?b?GyRCJVshPCVgGyhC?=", "ホーム"),
    ("Größe".encode(), "Größe"),
    (RUSSIAN.encode("koi8-r"), RUSSIAN),
    (b"=?nonsense?q?a_b?= c", "a b c"),
]


@pytest.mark.parametrize(("raw", "subject"), SUBJECTS)
def test_headers_in_any_encoding_are_decoded(raw: bytes, subject: str) -> None:
    assert read(b"Subject: " + raw + b"\n\nwords").title == subject


NAMES = [
    (b"filename*=utf-8''Gr%C3%B6%C3%9Fe.txt", "Größe.txt"),
    (b'filename="=?utf-8?q?Gr=C3=B6=C3=9Fe.txt?="', "Größe.txt"),
    (b"filename*0*=iso-8859-1''Gr%F6; filename*1*=%DFe.txt", "Größe.txt"),
    ('filename="Größe.txt"'.encode(), "Größe.txt"),
    (b'filename="C:\\\\Users\\\\ada\\\\a.txt"', "a.txt"),
    (b'filename="../../a.txt"', "a.txt"),
    (b"x=1", "part-1.txt"),
]


@pytest.mark.parametrize(("raw", "name"), NAMES)
def test_the_names_of_attachments_are_decoded(raw: bytes, name: str) -> None:
    data = b"Content-Type: text/plain\nContent-Disposition: attachment; " + raw + b"\n\nwords"
    assert [member.name for member in attached(data)] == [name]


def test_wrapped_lines_are_joined_again() -> None:
    head = HEAD + "Content-Type: text/plain; format=flowed"
    body = "A long \nline.\n> quoted \n> text\n From space\n-- \nAda"
    assert read(f"{head}\n\n{body}").text.endswith(
        "\n\nA long line.\n> quoted text\nFrom space\n-- \nAda"
    )
    assert read(f"{head}; DelSp=yes\n\n潮の満 \nち引き").text.endswith("潮の満ち引き")


def test_many_wrapped_lines_are_joined_in_little_time() -> None:
    head = HEAD + "Content-Type: text/plain; format=flowed\n\n"
    assert read(head + "a \n" * 2_000_000).text.endswith("a a")


def test_a_body_in_rtf_is_read_as_a_document() -> None:
    head = HEAD + "Content-Type: text/rtf\n\n"
    (member,) = attached(head + "{\\rtf1 words}")
    assert member.mime_type == "text/rtf"


def test_an_invitation_is_an_attachment_with_whole_words() -> None:
    message = letter()
    message.add_alternative("BEGIN:VCALENDAR\r\nSUMMARY:Low tide at the pi\r\n er\r\n", "calendar")
    ((name, data, kind, *_),) = attached(message.as_bytes())
    assert (name, kind) == ("part-1.ics", "text/calendar")
    from paise2nb.content.extract import text

    assert isinstance(data, bytes)
    assert "SUMMARY:Low tide at the pier" in text.read(data, Source("u", "text/calendar")).text


def test_files_in_a_winmail_dat_are_attachments() -> None:
    def attribute(level: int, name: int, value: bytes) -> bytes:
        return struct.pack("<BLL", level, name, len(value)) + value + bytes(2)

    data = struct.pack("<LH", 0x223E9F78, 1) + attribute(1, 0x89006, bytes(4))
    for name, content in (("a.txt", b"first words"), ("b.txt", b"second words")):
        data += attribute(2, 0x18010, name.encode() + b"\0") + attribute(2, 0x6800F, content)
    message = letter()
    message.add_attachment(data, "application", "ms-tnef", filename="winmail.dat")
    assert [(member.name, member.data) for member in attached(message.as_bytes())] == [
        ("a.txt", b"first words"), ("b.txt", b"second words"),
    ]  # fmt: skip


def test_an_encrypted_email_says_so(app: App, tmp_path: Path) -> None:
    message = letter()
    message.clear_content()
    message["Content-Type"] = "application/pkcs7-mime; name=smime.p7m"
    message.set_payload("eA==")
    stored(app, tmp_path / "m.eml", message.as_bytes())
    (job,) = app.jobs(task="extract", all=True)
    assert "is encrypted" in job.result()["warning"]


def der(tag: int, *inner: bytes, indefinite: bool = False) -> bytes:
    content = b"".join(inner)
    if indefinite:
        return bytes((tag, 0x80)) + content + b"\0\0"
    return bytes((tag, 0x82)) + struct.pack(">H", len(content)) + content


def signed(text: bytes, in_pieces: bool = False) -> bytes:
    kinds = [bytes.fromhex(f"06092a864886f70d0107{number:02}") for number in (2, 1)]
    octets = der(4, text)
    if in_pieces:
        octets = der(0x24, der(4, text[:50]), der(4, text[50:]), indefinite=True)
    content = der(0x30, kinds[1], der(0xA0, octets, indefinite=in_pieces))
    return der(0x30, kinds[0], der(0xA0, der(0x30, b"\x02\x01\x01", content, der(0xA0, b"key"))))


@pytest.mark.parametrize("in_pieces", [False, True])
def test_an_opaquely_signed_email_is_read(in_pieces: bool) -> None:
    text = "Content-Type: text/plain; charset=utf-8\n\nsigned words: Größe".encode()
    data = signed(text, in_pieces)
    message = EmailMessage()
    message["Subject"] = "Tides"
    message.set_content(data, "application", "pkcs7-mime", filename="smime.p7m")
    assert read(message.as_bytes()).text == "Subject: Tides\n\nsigned words: Größe"
    message.set_content(data, "application", "pkcs7-mime", filename="bill.xml.p7m")
    assert [(file.name, file.data) for file in attached(message.as_bytes())] == [("bill.xml", text)]


@pytest.mark.parametrize(("layers", "is_read"), [(3, True), (4, False)])
def test_signatures_around_each_other_are_limited(layers: int, is_read: bool) -> None:
    text = b"Content-Type: text/plain\n\nwords"
    for _ in range(layers):
        text = b"Content-Type: application/pkcs7-mime\n\n" + signed(text)
    assert (read(text).text == "words") is is_read
    assert [str(file.data) for file in attached(text)] == ["is signed more than 3 times"][is_read:]


def test_the_parts_of_an_encrypted_email_are_no_attachments() -> None:
    part = (
        "--b\nContent-Type: application/octet-stream; name=a.asc\n\n-----BEGIN PGP MESSAGE-----\n"
    )
    (found,) = attached(f"{HEAD}Content-Type: multipart/encrypted; boundary=b\n\n{part}--b--\n")
    assert isinstance(found.data, PermanentError)
    assert found.data.error_class == "password"


def test_a_byte_order_mark_is_no_part_of_the_head() -> None:
    assert read(f"\ufeff{HEAD}\nwords").title == "Tides"


def test_a_signature_and_a_report_of_delivery_are_no_attachments() -> None:
    signed = MIMEPart()
    signed.set_content(b"x", "application", "pgp-signature")
    message = letter()
    message.make_mixed()
    message.attach(signed)
    report = "Content-Type: message/delivery-status\n\nAction: failed\n\nStatus: 5.1.1\n"
    assert attached(message.as_bytes()) == []
    assert read(HEAD + report).text.endswith("Action: failed\nStatus: 5.1.1")


def test_an_apple_mail_file_is_read() -> None:
    body = HEAD.encode() + b"\nwords"
    assert read(b"%d   \n%s<?xml version='1.0'?><plist/>" % (len(body), body)).text.endswith(
        "words"
    )


@pytest.mark.parametrize(
    "date", ["Mon, 1 Jan 20240 10:00:00 +0000", "never", "31 Dec 9999 23:59 -1200"]
)
def test_an_impossible_date_is_none(date: str) -> None:
    assert read(f"Date: {date}\n\nwords").date is None


def test_parts_without_end_are_refused() -> None:
    head = "Content-Type: multipart/mixed; boundary=a{0}\n\n"
    deep = "".join(head.format(n) + f"--a{n}\n" for n in range(2000))
    for data in (
        deep,
        head + "--a\n\n" * (mail.MAX_PARTS + 1),
        "Content-Type: message/rfc822\n\n" * 2000,
    ):
        with pytest.raises(PermanentError) as got:
            read(data)
        assert got.value.error_class in ("damaged", "too_large")


def test_random_damage_gives_parts_or_a_permanent_error() -> None:
    dice = random.Random("mail")
    message = letter("Grüße")
    message.add_alternative("<p>words", "html")
    message.add_attachment("x", filename="größe.txt")
    message.add_attachment(letter())
    intact = message.as_bytes()
    for _ in range(400):
        data = damaged(intact, dice)
        with suppress(PermanentError):
            list(mail.parts(data, SOURCE))
            list(mail.messages(b"From a Tue 08:00\n" + data))


# Saved pages ---------------------------------------------------------------------------------


def saved(*parts: str, head: str = "From: <Saved by Blink>\nSubject: Saved\n") -> bytes:
    body = "".join(f"--b\n{part}\n" for part in parts)
    return f"{head}Content-Type: multipart/related; boundary=b\n\n{body}--b--\n".encode()


FRAME = "Content-Type: text/html; charset=utf-8\nContent-Location: https://example.org/{}\n\n{}"


def test_a_saved_page_has_the_text_of_its_frames_and_no_code(app: App, tmp_path: Path) -> None:
    page = "<html lang=en><title>Ledger</title><frameset><frame src=a><frame src=b></frameset>"
    css = "Content-Type: text/css\n\np { color: rebeccapurple }"
    data = saved(FRAME.format("", page), css, FRAME.format("a", "left words"),
                 FRAME.format("b", "right words"))  # fmt: skip
    for name in ("a.mhtml", "b.mht"):
        row = stored(app, tmp_path / name, data)[""]
        assert str(row["text"]).split()[-4:] == ["left", "words", "right", "words"]
        assert "rebeccapurple" not in str(row["text"])
        assert (row["title"], row["language"]) == ("Ledger", "en")


def test_a_page_saved_by_another_program_is_a_page_too() -> None:
    word = saved(FRAME.format("", "words of Word"), head="MIME-Version: 1.0\n")
    assert read(word).text == "words of Word"
    inline = saved(FRAME.format("", "words"), head=HEAD + "To: grace@example.org\n")
    assert read(inline).text.startswith("From: Ada")


def test_the_start_of_a_saved_page_is_named() -> None:
    parts = FRAME.format("a", "frame"), "Content-ID: <2>\n" + FRAME.format("", "start")
    data = saved(*parts).replace(b"boundary=b", b'start="<2>"; boundary=b', 1)
    assert mail.read_page(data, SOURCE).text.split() == ["start", "frame"]


# Outlook -------------------------------------------------------------------------------------


def test_an_outlook_message_and_its_attachments_are_items(app: App, tmp_path: Path) -> None:
    inner = documents.outlook("Inner tides", "inner words", {"deep.txt": b"deep words"})
    attachments = {"notes.docx": documents.docx("words of Word"), "": inner, "Größe.txt": b"more"}
    data = documents.ole(documents.outlook("Grüße", "outer words", attachments))
    found = stored(app, tmp_path / "m.msg", data)
    assert sorted(found) == [
        "", "!/Gr%C3%B6%C3%9Fe.txt", "!/Inner%20tides.eml", "!/Inner%20tides.eml!/deep.txt",
        "!/notes.docx",
    ]  # fmt: skip
    row = found[""]
    assert (row["title"], row["author"], row["date"]) == (
        "Grüße",
        "Ada",
        "2024-03-05T00:00:00+00:00",
    )
    assert str(row["text"]).endswith("outer words")
    assert "To: grace@example.org" in str(row["text"])
    assert str(found["!/Inner%20tides.eml"]["text"]).endswith("inner words")


def compressed_rtf(text: bytes) -> bytes:
    """RTF as Outlook stores it: a reference to the dictionary, letters, and a run of one letter."""
    words = b"\x01" + (4).to_bytes(2, "big") + text[6:13].ljust(7)  # "{\\rtf1" is in the dictionary
    for start in range(13, len(text), 8):
        words += b"\0" + text[start : start + 8].ljust(8)
    run = 207 + 6 + 7 + 8 * len(range(13, len(text), 8))  # where the next letter goes
    words += b"\x06" + b"}" + ((run << 4) | 3).to_bytes(2, "big")
    words += (((run + 6) << 4) | 0).to_bytes(2, "big")
    return struct.pack("<LL4sL", len(words) + 12, len(text), b"LZFu", 0) + words


@pytest.mark.parametrize("packed", [True, False])
def test_an_outlook_message_with_a_body_in_rtf_only_is_read(
    app: App, tmp_path: Path, packed: bool
) -> None:
    rtf = rb"{\rtf1\ansi The harbour bell rang twice before the fog came in.}"
    body = compressed_rtf(rtf[:-1]) if packed else struct.pack("<LL4sL", 0, 0, b"MELA", 0) + rtf
    message = documents.outlook("Fog", "", {})
    message["__substg1.0_10090102"] = body
    found = stored(app, tmp_path / "m.msg", documents.ole(message))
    assert any(
        "harbour bell rang twice before the fog" in str(row["text"]) for row in found.values()
    )


def test_an_outlook_message_in_an_old_code_page_is_read() -> None:
    page = struct.pack("<HHLQ", 3, 0x3FFD, 6, 1251)
    body = {"__substg1.0_1000001E": "Привет".encode("cp1251")}
    data = documents.ole({**body, "__properties_version1.0": bytes(32) + page})
    assert read(outlook.as_email(data)).text == "Привет"


def test_random_damage_of_an_outlook_message_is_a_known_error() -> None:
    dice = random.Random("outlook")
    intact = documents.ole(documents.outlook("Grüße", "words", {"a.txt": b"more words"}))
    for _ in range(200):
        data = bytearray(intact)
        for _ in range(dice.choice([1, 5, 50])):
            at = dice.randrange(len(data) - 1)
            data[at : at + 2] = dice.randbytes(2)
        with suppress(OSError, ValueError):
            outlook.as_email(bytes(data))
