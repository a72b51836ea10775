"""A user's own words on experts and tokens: in a small file beside the store, never in it.

`STORE.notes.json` holds a list of notes. What a note is about is named by what merging and copying leave as it is: the run's
uid and the router's name, or the place of a token in its source. The file is replaced whole, so that no reader sees half of
it; one that cannot be read is left as it is, and said.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from ..errors import StoreError
from .reader import Store

LONGEST, MOST = 2000, 5000  # characters of a note, notes of a file
BYTES = 16 << 20  # of a file that is read
EXPERT = "select r.uid, x.name, x.layer, x.stack from routers x join runs r using (run) where router = ?"
TOKEN = """
select r.uid, s.source, s.source_row, s.part, s.beam, s.stack, t.position, s.document
from tokens t join sequences s using (sequence) join runs r on r.run = t.run where t.token = ?"""
KEYS = ("uid", "router", "expert", "source", "source_row", "part", "beam", "stack", "position")
_writing = Lock()


@dataclass(frozen=True)
class Note:
    """One note: `about` says of what, by the names in KEYS; `title` says it to a reader."""

    about: Mapping[str, Any]
    title: str
    text: str
    written: str  # UTC, ISO 8601


def file_of(store: Path) -> Path:
    """Where the notes of a store lie."""
    return store.with_name(f"{store.name}.notes.json")


def expert(store: Store, router: int, number: int) -> tuple[dict[str, Any], str]:
    """What a note on an expert is about, and its title."""
    uid, name, layer, stack = store.rows(EXPERT, [router])[0]
    return {"uid": uid, "router": name, "expert": number}, f"expert {number} of {stack or ''} layer {layer}".replace("  ", " ")


def token(store: Store, number: int) -> tuple[dict[str, Any], str]:
    """What a note on a token is about, and its title."""
    uid, source, row, part, beam, stack, position, document = store.rows(TOKEN, [number])[0]
    about = {"uid": uid, "source": source, "source_row": row, "part": part, "beam": beam, "stack": stack, "position": position}
    return about, f"token {position} of {document or source}"


def read(store: Path) -> list[Note]:
    """All notes of a store, the newest first; none where there is no file. StoreError where it is no file of notes."""
    path = file_of(store)
    try:
        if path.stat().st_size > BYTES:
            raise ValueError("it is too large")
        found = json.loads(path.read_text(encoding="utf-8"))
        notes = [Note(dict(n["about"]), str(n["title"]), str(n["text"]), str(n["written"])) for n in found["notes"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"the notes {path} cannot be read ({error}); mend or move that file, the store itself is sound"
        ) from error
    return sorted(notes, key=lambda note: note.written, reverse=True)


def of_run(store: Store, run: int) -> list[Note]:
    """The notes on a run's experts and tokens, the newest first. StoreError as of `read`."""
    uids = {uid for (uid,) in store.rows("select uid from runs where run = ?", [run])}
    return [note for note in read(store.path) if note.about.get("uid") in uids]


def text(notes: list[Note], about: Mapping[str, Any]) -> str:
    """The note on this; empty where there is none."""
    return next((note.text for note in notes if _same(note.about, about)), "")


def write(store: Path, about: Mapping[str, Any], title: str, words: str) -> None:
    """Keep a note, in place of the one that was; take it away with empty `words`.

    StoreError if the file is none of notes, cannot be written, or would hold more than MOST notes or LONGEST characters in one.
    """
    words = words.strip()
    if len(words) > LONGEST:
        raise StoreError(f"a note has {len(words)} characters; write at most {LONGEST}")
    with _writing:
        others = [note for note in read(store) if not _same(note.about, about)]
        if words and len(others) >= MOST:
            raise StoreError(f"{file_of(store)} has {MOST} notes, as many as are kept; take some away")
        new = [Note(dict(about), title, words, datetime.now(UTC).isoformat(timespec="seconds"))] if words else []
        _replace(file_of(store), [*new, *others])


def _replace(path: Path, notes: list[Note]) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        temporary.write_text(
            json.dumps({"notes": [asdict(note) for note in notes]}, indent=1, ensure_ascii=False), encoding="utf-8"
        )
        temporary.replace(path)
    except (OSError, UnicodeEncodeError) as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(f"the note cannot be kept in {path} ({error}); make its folder writable") from error


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(key) == other.get(key) for key in KEYS)
