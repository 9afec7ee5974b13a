"""Write the table of docs/settings.md from the profiles: ``python -m tests.save_reference``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from paise2nb.config.parser import parse
from paise2nb.config.settings import KEYS

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs/settings.md"
PROFILES = ROOT / "paise2nb/config/profiles"
BASE = (PROFILES / "base.yaml").read_text("utf-8")
TABLE = re.compile(r"(?<=\|---\|---\|---\|\n)(\|.*\n)+")


def meaning(key: str) -> str:
    """The comment beside a setting's default."""
    section, line = parse(BASE, "line"), ""
    for part in key.split("."):
        line = next(written.origin for written in section if written == part)
        section = section[part]
    return BASE.splitlines()[int(line.removeprefix("line:")) - 1].partition("  # ")[2]


def value(key: str) -> str:
    """What a setting is in the profile production, as YAML on one line."""
    found: Any = yaml.safe_load(BASE)
    ours: Any = yaml.safe_load((PROFILES / "production.yaml").read_text("utf-8"))
    for part in key.split("."):
        found, ours = found[part], (ours or {}).get(part)
    found = found if ours is None else ours
    text = yaml.safe_dump(found, default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("...\n").strip()


def table() -> str:
    return "".join(f"| `{key}` | {value(key)} | {meaning(key)} |\n" for key in KEYS)


if __name__ == "__main__":
    DOCUMENT.write_text(TABLE.sub(lambda _: table(), DOCUMENT.read_text("utf-8")), "utf-8")
