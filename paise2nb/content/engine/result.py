"""What the readers of documents answer."""

from typing import Any, TypedDict


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
