"""Outlook's messages (.msg) as e-mails in the format of the internet, with their attachments."""

import base64
import struct
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from paise2nb.content.extract.text import decode

# Numbers of properties: [MS-OXPROPS].
_SUBJECT, _BODY, _HTML, _SENDER, _CODE_PAGE = 0x0037, 0x1000, 0x1013, 0x0C1A, 0x3FFD
_HEADERS = {"To": 0x0E04, "Cc": 0x0E03, "Message-ID": 0x1035}
_SENDER_ADDRESSES, _TIMES = (0x5D01, 0x0C1F), (0x0039, 0x0E06)
_RTF = 0x1009
_NAMES, _DATA, _MIME_TYPE = (0x3707, 0x3704), 0x3701, 0x370E
_UNICODE, _STRING, _BINARY, _OBJECT = 0x001F, 0x001E, 0x0102, 0x000D
# What the dictionary of compressed RTF begins with: [MS-OXRTFCP], section 2.1.2.1.
_DICTIONARY = (
    rb"{\rtf1\ansi\mac\deff0\deftab720{\fonttbl;}"
    rb"{\f0\fnil \froman \fswiss \fmodern \fscript \fdecor "
    rb"MS Sans SerifSymbolArialTimes New RomanCourier"
    rb"{\colortbl\red0\green0\blue0"
    b"\r\n"
    rb"\par \pard\plain\f0\fs20\b\i\u\tab\tx"
)
_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)


def as_email(data: bytes) -> bytes:
    """Convert a message. Raises OSError or ValueError if it is damaged."""
    import olefile

    try:
        with olefile.OleFileIO(data) as ole:
            return _Storage(ole, [], header=32).email()
    except (OverflowError, struct.error) as error:
        raise ValueError(str(error)) from error


class _Storage:
    """The properties of a message or an attachment: [MS-OXMSG], section 2.4.

    Args:
        ole: The open file.
        path: The storage of the message or the attachment in it.
        header: The number of bytes before the properties of fixed length.
    """

    def __init__(self, ole: Any, path: list[str], header: int) -> None:
        self._ole, self._path = ole, path
        self._fixed: dict[int, bytes] = {}
        stream = self._read("__properties_version1.0") or b""
        for at in range(header, len(stream) - 15, 16):
            number, value = struct.unpack_from("<2xH4x8s", stream, at)
            self._fixed[number] = value

    def email(self) -> bytes:
        """The message with its attachments."""
        address = next((a for a in map(self.text, _SENDER_ADDRESSES) if "@" in a), "")
        sender = self.text(_SENDER).replace('"', "")
        head = {"From": f'"{sender}" <{address}>' if sender and address else sender or address}
        head["Subject"] = self.text(_SUBJECT)
        head |= {name: self.text(number) for name, number in _HEADERS.items()}
        for number in _TIMES:
            moment = int.from_bytes(self._fixed.get(number, b""), "little")
            with suppress(OverflowError):
                sent = _EPOCH + timedelta(microseconds=moment // 10)
                head |= {"Date": format_datetime(sent)} if moment and "Date" not in head else {}
        bodies = [_part("text/plain; charset=utf-8", self.text(_BODY).encode())]
        if html := self._value(_HTML, _BINARY) or self.text(_HTML).encode():
            bodies.append(_part("text/html", html))
        elif not self.text(_BODY).strip() and (rtf := _unpacked(self._value(_RTF, _BINARY) or b"")):
            bodies.append(_part("text/rtf", rtf))
        parts = [self._multipart("alternative", bodies)]
        for entry in sorted(self._ole.listdir(streams=False, storages=True)):
            if entry[:-1] == self._path and entry[-1].startswith("__attach_version1.0_"):
                parts.append(_Storage(self._ole, entry, header=8)._attachment())
        lines = [f"{name}: {' '.join(value.split())}\n" for name, value in head.items() if value]
        return "".join(lines).encode() + self._multipart("mixed", parts)

    def text(self, number: int) -> str:
        """A property that is text, or nothing."""
        if (value := self._value(number, _UNICODE)) is not None:
            return value.decode("utf-16-le", "replace").rstrip("\0")
        code_page = int.from_bytes(self._fixed.get(_CODE_PAGE, b"")[:4], "little")
        return decode(self._value(number, _STRING) or b"", f"cp{code_page}").rstrip("\0")

    def _attachment(self) -> bytes:
        name = next(filter(None, map(self.text, _NAMES)), "")
        inner = [*self._path, f"__substg1.0_{_DATA:04X}{_OBJECT:04X}"]
        if self._ole.exists([*inner, "__properties_version1.0"]):
            return b"Content-Type: message/rfc822\n\n" + _Storage(self._ole, inner, 24).email()
        kind = self.text(_MIME_TYPE) or "application/octet-stream"
        return _part(kind, self._value(_DATA, _BINARY) or b"", name or "attachment")

    def _multipart(self, kind: str, parts: list[bytes]) -> bytes:
        boundary = f"={len(self._path)}={kind}="  # no line of base64 begins so
        head = f'Content-Type: multipart/{kind}; boundary="{boundary}"\n\n'
        body = b"".join(f"--{boundary}\n".encode() + part + b"\n" for part in parts)
        return head.encode() + body + f"--{boundary}--\n".encode()

    def _value(self, number: int, kind: int) -> bytes | None:
        return self._read(f"__substg1.0_{number:04X}{kind:04X}")

    def _read(self, name: str) -> bytes | None:
        path = [*self._path, name]
        if not self._ole.exists(path):
            return None
        with self._ole.openstream(path) as stream:
            content: bytes = stream.read()
            return content


def _unpacked(data: bytes) -> bytes:
    """RTF without its compression: [MS-OXRTFCP], section 3.1.4. What is damaged is cut off."""
    if data[8:12] == b"MELA":
        return data[16:]
    if data[8:12] != b"LZFu":
        return b""
    window, write = bytearray(_DICTIONARY.ljust(4096, b"\0")), len(_DICTIONARY)
    rtf, at = bytearray(), 16
    with suppress(IndexError):
        while True:
            flags, at = data[at], at + 1
            for bit in range(8):
                if flags >> bit & 1:
                    reference, at = data[at] << 8 | data[at + 1], at + 2
                    start, length = reference >> 4, (reference & 15) + 2
                    if start == write % 4096:
                        return bytes(rtf)
                else:
                    start, length, window[write % 4096], at = write, 1, data[at], at + 1
                for place in range(start, start + length):
                    window[write % 4096] = window[place % 4096]
                    rtf.append(window[place % 4096])
                    write += 1
    return bytes(rtf)


def _part(kind: str, content: bytes, name: str = "") -> bytes:
    head = f"Content-Type: {' '.join(kind.split())}\nContent-Transfer-Encoding: base64\n"
    if name:
        quoted = " ".join(name.split()).replace("\\", "").replace('"', "'")
        head += f'Content-Disposition: attachment; filename="{quoted}"\n'
    return head.encode() + b"\n" + base64.encodebytes(content)
