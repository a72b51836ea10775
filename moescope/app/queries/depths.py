"""How deep tokens went: which of the blocks and recursions that may be left out ran for them."""

import pandas as pd

from moescope.app.queries import store_access
from moescope.app.queries.token_routes import LABELS, PAGE, TOKENS, plain

ROUTERS = "select router, experts from routers where run = ? and kind = 'depth' order by layer, router"
STACKS = "select distinct stack from routers where run = ? and kind = 'depth' order by 1"
DEPTH = """
with mine as (select token from tokens where sequence = ?),
last as (
  select token, forward, depth, considered from token_depth where run = ? and token in (from mine){step}
  qualify row_number() over (partition by token order by forward desc) = 1)
select l.token, l.depth, l.considered,
       list(a.router order by r.layer, a.router, a.iteration, a.expert) filter (r.kind = 'depth') as routers,
       list(a.expert order by r.layer, a.router, a.iteration, a.expert) filter (r.kind = 'depth') as runs,
       list(a.weight order by r.layer, a.router, a.iteration, a.expert) filter (r.kind = 'depth') as weights
from last l left join (from assignments where not dropped) a on a.token = l.token and a.forward = l.forward
left join routers r on r.router = a.router group by all order by token"""
MOST = "select coalesce(max(depth), 0)::int as most from token_depth where run = ?"


def depth_sql(forward: int | None) -> str:
    """The query of depths in one forward, or of each token's last one; its parameters are the sequence and the run."""
    return DEPTH.format(step="" if forward is None else f" and forward = {int(forward)}")


def tokens(run: int, sequence: int, page: int, forward: int | None, names: dict[int, str]) -> pd.DataFrame:
    """Tokens of a sequence as `colored_tokens.data_of` takes them, with `depth` (NaN: no router of depth looked at it).

    `experts` are the names of what ran for the token.
    """
    frame = store_access.frame(TOKENS, sequence, PAGE, page * PAGE)
    if frame.empty:
        return frame
    many = {row["router"]: row["experts"] for row in store_access.rows(ROUTERS, run)}
    low, high = int(frame["token"].min()), int(frame["token"].max())
    frame = frame.merge(store_access.frame(depth_sql(forward), sequence, run), on="token", how="left")
    frame = frame.merge(store_access.frame(LABELS, low, high), on="token", how="left")
    frame["labels"] = frame["labels"].fillna("")
    runs = [list(zip(plain(r), plain(e), strict=True)) for r, e in zip(frame["routers"], frame["runs"], strict=True)]
    frame["experts"] = [[names.get(r, str(r)) + (f", run {e + 1}" if many[r] > 1 else "") for r, e in pairs] for pairs in runs]
    frame["weights"] = [plain(w) for w in frame["weights"]]
    frame["drops"] = [[False] * len(ran) for ran in frame["experts"]]
    return frame.assign(entropy=float("nan"), margin=float("nan"), depth=frame["depth"].astype(float))
