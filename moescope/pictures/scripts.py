"""The scripts and styles of pictures: each in a file of browser/, one way for the dashboard and for pages that stand alone."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ..charts import CATEGORY, look

HOME = Path(__file__).with_name("browser")
HEAD = "export default function "  # how each script of a component begins its one function
STYLES = {"scatter": "heat_map", "flow_ribbons": "heat_map"}  # whose style another has
NEEDS = {"layered_tokens": ("colored_tokens", "route_table")}
HELPERS = ("element.js", "route_bar.js")  # functions that several of them call


@cache
def read(*files: str) -> str:
    """Files of browser/, one after the other."""
    return "".join(HOME.joinpath(file).read_text(encoding="utf-8") for file in files)


def script(names: Iterable[str]) -> str:
    """One script of these components and what draws them without a server: `host.js` calls them as Streamlit does."""
    known = dict.fromkeys(part for name in names for part in (*NEEDS.get(name, ()), name))
    parts = [read(f"{name}.js").replace(HEAD, f"components.{name} = function ", 1) for name in known]
    return "(() => {\n" + read(*HELPERS) + "const components = {}\n" + "\n".join(parts) + "\n" + read("host.js") + "})()\n"


def style(names: Iterable[str]) -> str:
    """Their styles, and the variables that Streamlit's theme would set."""
    known = dict.fromkeys(part for name in names for part in (*NEEDS.get(name, ()), name))
    files = dict.fromkeys(f"{STYLES.get(name, name)}.css" for name in known)
    there = [file for file in files if HOME.joinpath(file).is_file()]
    return themes() + read("host.css", "element.css", *there)


def themes() -> str:
    """CSS: colours on light and on dark ground; paper is light."""
    light, dark = _variables("light"), _variables("dark")
    return (
        f":root {{ color-scheme: light; {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root:not([data-theme=light]) {{ color-scheme: dark; {dark} }} }}\n"
        f"@media screen {{ :root[data-theme=dark] {{ color-scheme: dark; {dark} }} }}\n"
    )


def _variables(mode: str) -> str:
    colours = look(mode)
    named = {
        "text-color": colours["ink"], "background-color": colours["ground"], "secondary-background-color": colours["wash"],
        "border-color": colours["line"], "primary-color": colours["accent"], "faint": colours["faint"],
        "font": "system-ui, 'Source Sans 3', 'Source Sans Pro', 'Helvetica Neue', Arial, sans-serif",
        "chart-categorical-colors": ",".join(CATEGORY),
        "chart-sequential-colors": ",".join(colours["sequential"]), "chart-diverging-colors": ",".join(colours["diverging"]),
    }  # fmt: skip
    return " ".join(f"--st-{name}: {value};" for name, value in named.items())
