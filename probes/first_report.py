"""The runs behind reports/first-report.md: `python probes/first_report.py [FOLDER]`, about a minute of one core."""

import lzma
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import altair as alt
import duckdb
import pandas as pd
from first_report_tables import BEYOND, GIVEN, LABEL, Asked, saturation, tables, three

import moescope
from moescope.charts import to_svg

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))  # for specimens, which are no part of the package
REPORT = ROOT / "reports" / "first-report.md"
TEXTS, IMAGES = 100, 160
KEPT = ROOT / "specimens" / "checkpoints" / "mixtral.duckdb.xz"  # runs 0, 1, 2: decisions at steps 24, 240 and 960
SUMMED: dict[str, Any] = {"logits": True, "activations": ("importance", "dimensionality")}


def traces(folder: Path) -> dict[str, Path]:
    """Every store of the report; one that is there already is not made again."""
    stores = {name: folder / f"{name}.duckdb" for name in ("mixtral", "switch", "vmoe", "shuffled")}
    if not stores["mixtral"].exists():
        _mixtral(stores["mixtral"])
    if not stores["switch"].exists():
        for name in ("switch-collapsed", "switch"):
            moescope.trace(name, "text", stores["switch"], limit=TEXTS, name=name, logits=True, max_length=128)
    if not stores["vmoe"].exists():
        for factor in (0.5, 0.25, None):
            changed = {"capacity_factor": factor} if factor else {}
            name = f"capacity {factor}" if factor else "as shipped"
            moescope.trace("vmoe", "fashion-mnist", stores["vmoe"], limit=IMAGES, name=name, logits=True, overrides=changed)
    if not stores["shuffled"].exists():
        shutil.copy(stores["mixtral"], stores["shuffled"])
        shuffle(stores["shuffled"])
    return stores


def _mixtral(store: Path) -> None:
    """Five steps of the training in one store: three as they were kept, run 3 the untrained and run 4 the trained model."""
    from moescope.models.loading import load
    from specimens.training.mixtral import untrained

    store.write_bytes(lzma.decompress(KEPT.read_bytes()))
    trained = load("mixtral")
    for step, model in (("0000", untrained()), ("2400", trained.model)):
        asked: dict[str, Any] = {"tokenizer": trained.tokenizer, "limit": TEXTS, "max_length": 256, **SUMMED}
        moescope.trace(model, "text", store, name=f"step {step}", **asked)


def shuffle(store: Path) -> None:
    """Deal the labels anew: domains over documents, labels of tokens over all tokens that have one of that kind."""
    con = duckdb.connect(str(store))
    for key, table, group in (
        ("sequence", "sequence_labels", "coalesce(document, source || source_row)"),
        ("token", "token_labels", "token"),
    ):
        con.execute(
            f"""create temp table dealt as
with units as (select l.{key}, l.kind, l.label, s.run, {group} as unit from {table} l join {key}s s using ({key})),
each as (select run, kind, unit, any_value(label) as label from units group by all),
numbered as (select *, row_number() over (partition by run, kind order by unit) as place from each),
mixed as (select run, kind, label, row_number() over (partition by run, kind order by hash(unit, 'dealt')) as place from each)
select {key}, kind, m.label from units u join numbered n using (run, kind, unit) join mixed m using (run, kind, place)"""
        )
        con.execute(f"delete from {table}")
        con.execute(f"insert into {table} select * from dealt")
        con.execute("drop table dealt")
    con.close()


def fill(report: Path, blocks: dict[str, str]) -> None:
    """Put every table between its marks; KeyError for a mark without a table."""
    text = report.read_text()
    for name in re.findall(r"<!-- table (\S+) -->", text):
        mark = f"<!-- table {name} -->"
        text = re.sub(f"{mark}.*?<!-- end -->", f"{mark}\n{blocks[name]}\n<!-- end -->", text, flags=re.S)
    report.write_text(text)


def lines(columns: dict[str, pd.DataFrame], title: str) -> alt.LayerChart:
    """Figures by layer, one colour per column, with intervals."""
    frame = pd.concat([f.assign(of=name) for name, f in columns.items()])[["layer", "value", "ci_low", "ci_high", "of"]]
    base = alt.Chart(frame.astype({"layer": int})).encode(
        x=alt.X("layer:O", axis=alt.Axis(labelAngle=0)),
        color=alt.Color("of:N", title=None, sort=list(columns)),
        xOffset=alt.XOffset("of:N", sort=list(columns)),
    )
    points = base.mark_point(filled=True, size=60).encode(y=alt.Y("value:Q", title=title))
    return (points + base.mark_rule().encode(y="ci_low:Q", y2="ci_high:Q")).properties(width=460, height=240, title=title)


def pictures(ask: Asked) -> dict[str, Any]:
    """The report's figures."""
    capacity = ask("vmoe", "load", 2).frames["capacity"]
    whatif = (
        alt.Chart(capacity)
        .mark_line(point=True)
        .encode(
            x="ratio:Q",
            y=alt.Y("dropped_weight:Q", title="share of routing weight lost"),
            color="layer:N",
            strokeDash="order:N",
        )
        .properties(width=460, height=240, title="V-MoE: weight lost at other capacity ratios")
    )
    return {
        "domain": lines(
            three(ask, "specialization", lambda a: a.figures(LABEL, estimator=BEYOND)), "I(domain; expert), bits beyond chance"
        ),
        "part-of-speech": lines(
            three(ask, "syntax", lambda a: a.figures(GIVEN, estimator="corrected", subset="upos"), kinds="upos"),
            "I(part of speech; expert | token and document), bits beyond chance",
        ),
        "saturation": lines(saturation(ask), "Overlap with the choices of step 2400"),
        "switch-load": ask("switch", "load", 0).charts()["share of load"].chart,
        "capacity": whatif,
    }


def main(folder: Path) -> None:
    """Trace, ask, draw, and fill the report's tables."""
    ask = Asked(traces(folder))
    fill(REPORT, tables(ask))
    for name, chart in pictures(ask).items():
        (REPORT.parent / "figures").mkdir(exist_ok=True)
        (REPORT.parent / "figures" / f"first-{name}.svg").write_text(to_svg(chart, small=True))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
