"""Notes: a field under an expert or a token, and all notes of a run as a file."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from moescope.app.parts import panels
from moescope.app.queries import store_access
from moescope.errors import MoescopeError
from moescope.store import notes


def known() -> list[notes.Note]:
    """All notes beside this store; none where their file cannot be read, which `field` says."""
    try:
        return notes.read(store_access.path())
    except MoescopeError:
        return []


@panels.part
def field(about: Mapping[str, Any], title: str, key: str) -> None:
    """A note on this expert or token, which whoever opens the store sees; kept when the field is left."""
    box, said = f"note-{key}", notes.text(notes.read(store_access.path()), about)
    if st.session_state.get(f"{box}-of") != (dict(about), said):
        st.session_state[f"{box}-of"], st.session_state[box] = (dict(about), said), said
    st.text_area(
        f"Note on {title}", key=box, height=68, max_chars=notes.LONGEST, on_change=_keep, args=(dict(about), title, box),
        placeholder="Your own words: kept beside the store, seen by whoever opens it.",
    )  # fmt: skip
    if failed := st.session_state.pop(f"{box}-failed", None):
        panels.sentence(failed)


def _keep(about: dict[str, Any], title: str, box: str) -> None:
    try:
        notes.write(store_access.path(), about, title, str(st.session_state[box]))
    except MoescopeError as error:
        st.session_state[f"{box}-failed"] = str(error)


def listed(uid: str) -> None:
    """The notes of a run, with their file."""
    mine = [note for note in notes.read(store_access.path()) if note.about.get("uid") == uid]
    if not mine:
        return
    panels.section("Notes", f"Kept in {notes.file_of(store_access.path()).name}, beside the store.")
    for note in mine[:50]:
        st.markdown(f"**{panels.plain(note.title)}** · {panels.plain(note.text, notes.LONGEST)}")
    panels.cut_note(min(len(mine), 50), len(mine), "notes are shown; the file has all")
    lines = "".join(f"* {note.title} ({note.written}): {' '.join(note.text.split())}\n" for note in mine)
    st.download_button(
        "Notes as text", lines, f"moescope-notes-{uid[:8]}.md", "text/markdown", key="notes-file", on_click="ignore"
    )
