"""The text of pictures, by Tesseract's program.

The library in xberg would cache each result under ~/.cache, answer with nothing if the data of a
language is missing, or try to download it.
"""

import os
import subprocess
from collections.abc import Sequence

from paise2nb.content.engine.result import EngineError

SECONDS = 240.0  # for one picture; outside of workers nothing else ends it
PACKAGE = "tesseract-ocr"  # of Debian and Ubuntu


def recognise(image: bytes, languages: Sequence[str]) -> str:
    """Recognise the text of an image.

    Args:
        image: PNG, JPEG, TIFF, GIF, WebP, BMP or PGM.
        languages: Tesseract's names, such as ``eng``.

    Raises:
        EngineError: ``damaged``. ``ocr``: Tesseract or the data of a language is missing.
    """
    # Asked each time: users install what an error names.
    installed = _run("--list-langs").stdout.decode("utf-8", "replace").splitlines()[1:]
    for language in languages:
        if language not in installed:
            package = f"{PACKAGE}-{language.replace('_', '-').lower()}"
            raise EngineError(
                f"Tesseract has no data of the language {language}: apt-get install {package}",
                "ocr",
            )
    # 1: detect the orientation of the page, which needs data of its own.
    layout = ["--psm", "1"] if "osd" in installed else []
    done = _run("stdin", "stdout", "-l", "+".join(languages), *layout, image=image)
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        raise EngineError(f"Tesseract: {lines[-1]}")
    return done.stdout.decode("utf-8", "replace").replace("\f", "\n").strip()


def _run(*arguments: str, image: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["tesseract", *arguments],
            input=image,
            capture_output=True,
            env={**os.environ, "OMP_THREAD_LIMIT": "1"},  # other jobs need the other cores
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"Tesseract took longer than {SECONDS:g} s", "timeout") from None
    except FileNotFoundError as error:
        message = f"Tesseract is not installed: apt-get install {PACKAGE}"
        raise EngineError(message, "ocr") from error
