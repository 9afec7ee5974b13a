"""The words of PDFs, beside pdftotext: ``python -m tests.benchmarks.pdf [DIRECTORY]``.

Reads up to three PDFs of each folder below the directory, by default /usr/share/doc. Packages of
Debian that bring some, in a dozen languages and from as many programs (pdftotext is in
poppler-utils)::

    apt-get download debian-faq debian-faq-de debian-faq-fr debian-faq-it debian-faq-ja \\
        debian-faq-nl debian-faq-ru debian-faq-zh-cn maint-guide maint-guide-es maint-guide-ja \\
        maint-guide-zh-cn developers-reference geomview glpk-doc gnuplot-doc graphviz-doc \\
        gri-pdf-doc libatlas-doc lhs2tex mrbayes-doc music-doc nauty-doc noweb proofgeneral-doc \\
        r-cran-coin r-cran-multcomp r-cran-mvtnorm r-cran-sp r-cran-strucchange r-cran-vcd \\
        r-cran-xtable r-cran-zoo yorick-doc 4ti2-doc bzip2-doc camlidl-doc fasta3-doc
    for file in *.deb; do dpkg-deb -x "$file" DIRECTORY; done

The table has the share of pdftotext's words that each reader finds, the share of its words that
pdftotext has, too, and processor time. Exit status 1 if the mean of ours is below 0.97.
"""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from paise2nb.content import engine
from paise2nb.content.extract import documents
from paise2nb.core.errors import PermanentError
from paise2nb.plugins import Source

LEAST = 0.97
EACH = 3  # PDFs of a folder
PDF = "application/pdf"


def pdfs(root: Path) -> Iterator[tuple[Path, bytes]]:
    taken = Counter[Path]()
    for path in sorted(root.rglob("*.pdf*")):
        if path.suffix not in (".pdf", ".gz") or not path.is_file() or taken[path.parent] == EACH:
            continue
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        if data.startswith(b"%PDF"):
            taken[path.parent] += 1
            yield path, data


def words(text: str) -> Counter[str]:
    text = unicodedata.normalize("NFKC", text).replace("\u00ad", "")
    text = re.sub(r"(\w)[-\u2010]\n\s*(?=[^\W\d_])", r"\1", text)
    return Counter(re.findall(r"\w+", text.casefold()))


def by_poppler(data: bytes) -> str:
    ran = subprocess.run(["pdftotext", "-", "-"], input=data, capture_output=True, check=True)
    return ran.stdout.decode("utf-8", "replace")


def by_ours(data: bytes) -> str:
    try:
        return documents.read(data, Source("u", PDF), engine.Reading(in_process=True)).text
    except PermanentError as error:
        return str(error)


def by_xberg(data: bytes) -> str:
    try:
        return engine._by_xberg(data, PDF)["text"]
    except engine.EngineError as error:
        return str(error)


def timed(read: Callable[[bytes], str], data: bytes) -> tuple[Counter[str], float]:
    before = os.times()
    text = read(data)
    return words(text), sum(os.times()[:4]) - sum(before[:4])


def main() -> None:
    """Print the table."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/doc")
    readers = {"ours": by_ours, "xberg": by_xberg}
    recall = dict.fromkeys(readers, 0.0)
    seconds = Counter[str]()
    number = 0
    print("words    ours            xberg           (recall, precision)")
    for path, data in pdfs(root):
        theirs, spent = timed(by_poppler, data)
        seconds["pdftotext"] += spent
        if not theirs:
            continue
        number += 1
        row = f"{theirs.total():7,}"
        for name, reader in readers.items():
            ours, spent = timed(reader, data)
            shared = (theirs & ours).total()
            recall[name] += shared / theirs.total()
            seconds[name] += spent
            row += f"  {shared / theirs.total():.3f} {shared / max(ours.total(), 1):.3f}   "
        print(row, path.name, flush=True)
    if not number:
        sys.exit(f"no PDFs below {root}")
    for name in readers:
        print(
            f"{name}: mean recall {recall[name] / number:.4f}, {seconds[name]:.1f} s of processor"
        )
    print(f"pdftotext: {seconds['pdftotext']:.1f} s; {number} PDFs", flush=True)
    os._exit(recall["ours"] / number < LEAST)  # because xberg may abort at a normal exit


if __name__ == "__main__":
    main()
