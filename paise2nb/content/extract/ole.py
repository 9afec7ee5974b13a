"""OLE files by the streams in their root directory.

An embedded document has streams of the same names further down, so the bytes alone can't tell which
document it is. Sources: [MS-CFB]; for passwords [MS-OFFCRYPTO] 2.3.4.5, [MS-DOC] 2.5.2,
[MS-XLS] 2.4.117, [MS-PPT] 2.3.2.
"""

import io
import struct

HEAD = 4096  # bytes of a stream
_READ = ("worddocument", "workbook", "book", "current user")
_FILE_PASS, _WRITE_PROTECTED, _BEGIN = 0x2F, 0x86, (0x0009, 0x0209, 0x0409, 0x0809)
_ENCRYPTED_SLIDES = b"\xdf\xc4\xd1\xf3"


def root_streams(data: bytes) -> dict[str, bytes]:
    """The names in the root directory in lower case, with the beginnings of some streams.

    It is empty if the file is too damaged to tell.
    """
    import olefile

    found = {}
    try:
        with olefile.OleFileIO(io.BytesIO(data)) as ole:
            for name in {path[0] for path in ole.listdir(storages=True)}:
                found[name.lower()] = b""
                if name.lower() in _READ:
                    with ole.openstream(name) as stream:
                        found[name.lower()] = stream.read(HEAD)
    except (OSError, ValueError, IndexError, OverflowError, RecursionError, struct.error):
        return found
    return found


def is_locked(streams: dict[str, bytes]) -> bool:
    """Whether a document with these streams can be read only with a password."""
    word, user = streams.get("worddocument", b""), streams.get("current user", b"")
    return (
        "encryptedpackage" in streams
        or (len(word) > 11 and bool(word[11] & 0x01))
        or user[12:16] == _ENCRYPTED_SLIDES
        or _has_password(streams.get("workbook") or streams.get("book", b""))
    )


def _has_password(sheet: bytes) -> bool:
    """Whether the first records of a spreadsheet say that the others are encrypted."""
    position = 0
    while position + 4 <= len(sheet):
        kind, length = struct.unpack_from("<HH", sheet, position)
        if kind != _WRITE_PROTECTED and kind not in _BEGIN:
            return bool(kind == _FILE_PASS)
        position += 4 + length
    return False
