"""Man page source to plain text, well enough to train on: no line breaking, no hyphenation, no tables."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

FONT = re.compile(r"\\f(?:\(..|\[[^\]]*\]|.)|\\s[-+]?\d|\\[,/&|^%:]")
NAMED = {
    "\\-": "-",
    "\\e": "\\",
    "\\ ": " ",
    "\\~": " ",
    "\\(aq": "'",
    "\\(bu": "•",
    "\\(co": "©",
    "\\(en": "–",
    "\\(em": "—",
    "\\(dq": '"',
    "\\(lq": "„",
    "\\(rq": "“",
    "\\(Bq": "„",
    "\\(ha": "^",
    "\\(ti": "~",
    "\\&": "",
}
UMLAUT = dict(zip("aouAOU", "äöüÄÖÜ"))
TEXT_MACROS = {"B", "I", "BR", "RB", "IR", "RI", "BI", "IB", "SM", "SB"}


def plain_text(path: Path) -> str:
    """Paragraphs of a gzipped man page, one a line. Headings, tables, examples and the page's licence notes go."""
    lines: list[str] = [""]
    skipping = False
    for line in gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace").splitlines():
        if line.startswith((".TS", ".nf", ".EX")):
            skipping = True
        elif line.startswith((".TE", ".fi", ".EE")):
            skipping = False
        elif re.match(r"\.SH \"?(ÜBERSETZUNG|COPYRIGHT|KOLOPHON|FEHLER MELDEN)", line):
            break
        elif not skipping:
            take(line, lines)
    return "\n".join(text for text in (" ".join(unescape(p).split()) for p in lines) if len(text) > 60)


def take(line: str, lines: list[str]) -> None:
    """Adds a source line to the paragraph being built, or starts a new paragraph at a macro that does."""
    macro = re.match(r"[.']\s*(\w+)?\s*(.*)", line)
    if not macro:
        lines[-1] += " " + line
    elif macro[1] in TEXT_MACROS:
        words = re.findall(r'"([^"]*)"|(\S+)', macro[2])
        lines[-1] += " " + ("" if len(macro[1]) == 2 else " ").join(a or b for a, b in words)
    elif macro[1] in {"PP", "P", "LP", "TP", "IP", "SH", "SS", "HP", "sp", "br", "RS", "RE"}:
        lines.append("")


def unescape(text: str) -> str:
    """Resolves the escapes that occur in translated pages and drops the rest."""
    text = FONT.sub("", text)
    for escape, character in NAMED.items():
        text = text.replace(escape, character)
    text = re.sub(r"\\\[u([0-9A-F]{4})\]", lambda m: chr(int(m[1], 16)), text)
    text = re.sub(r"\\(?:\(:|\[:)([aouAOU])\]?", lambda m: UMLAUT[m[1]], text).replace("\\(ss", "ß")
    return re.sub(r"\\(\(..|\[\w+\]|\*\(..|\*.|.)", "", text)
