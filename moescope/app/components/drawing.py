"""What the components of the browser share: how their script is found, and drawn anew only when their data differ."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from moescope.pictures import scripts


@st.cache_resource(show_spinner=False)
def sources(name: str, style: str) -> tuple[str, str]:
    """A component's script and its style, each behind what all of them use."""
    return scripts.read(*scripts.HELPERS, f"{name}.js"), scripts.read("element.css", f"{style}.css")


def sign(data: Mapping[str, Any]) -> str:
    """Differs when the data do."""
    return hashlib.blake2b(json.dumps(data, default=str).encode(), digest_size=9).hexdigest()


def show(
    name: str, data: Mapping[str, Any], key: str, style: str = "heat_map", root: str | None = None, **events: Callable[[], None]
) -> Any:
    """Draw <name>.js with signed data in <div class=root>; what it says."""
    script, css = sources(name, style)
    component = st.components.v2.component(f"moescope_{name}", html=f'<div class="{root or name}"></div>', js=script, css=css)
    return component(data=dict(data), key=key, **events)
