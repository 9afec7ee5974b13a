"""How documents are read, and what their readers answer."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict


class Reading(NamedTuple):
    """How a document is read.

    Attributes:
        memory_mb: What reading it may allocate. If it needs more, the process that reads it ends.
        seconds: How long another process may take.
        in_process: Read it in this process, a worker, which the supervisor can kill.
        languages: Recognise the text of pictures, in these languages of Tesseract.
    """

    memory_mb: float = 1024
    seconds: float = 300
    in_process: bool = False
    languages: Sequence[str] | None = None


class Extracted(TypedDict):
    """What is in a document.

    ``metadata`` has those that the document declares of ``title``, ``subject``, ``authors``,
    ``created_at``, ``modified_at``, ``language`` and ``page_count``; and ``recognised``, if
    Tesseract read it: the ``languages``, and the ``pages`` of a PDF.
    """

    text: str
    metadata: dict[str, Any]


class EngineError(Exception):
    """The document can't be read.

    Args:
        message: Why.
        error_class: ``damaged``, ``password``, ``scan``, ``ocr``; or why the process that read it
            has ended: ``memory``, ``timeout`` or ``crash``.
    """

    def __init__(self, message: str, error_class: str = "damaged") -> None:
        super().__init__(message)
        self.error_class = error_class
