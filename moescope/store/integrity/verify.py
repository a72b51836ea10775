"""Is a store sound? References that lead somewhere, arithmetic that adds up."""

from dataclasses import dataclass

from ..reader import Store

_REFERENCES = [
    ("runs", "model", "models"), ("routers", "run", "runs"), ("experts", "router", "routers"),
    ("sequences", "run", "runs"), ("tokens", "sequence", "sequences"), ("sequence_labels", "sequence", "sequences"),
    ("pictures", "sequence", "sequences"),
    ("token_labels", "token", "tokens"), ("forwards", "run", "runs"), ("decisions", "forward", "forwards"),
    ("decisions", "router", "routers"), ("decisions", "token", "tokens"), ("assignments", "router", "routers"),
    ("pools", "forward", "forwards"), ("conditions", "forward", "forwards"), ("load_rollup", "router", "routers"),
]  # fmt: skip

_KEYS = ["models.model", "runs.run", "runs.uid", "routers.router", "sequences.sequence", "tokens.token", "forwards.forward"]

_ARITHMETIC = {
    "conditions of one sequence name one that is there": """
        select count(*) from conditions c anti join sequences s using (sequence) where c.sequence is not null""",
    "branches of a tree name a router of their run and one of its experts": """
        select count(*) from routers r anti join routers p
        on (p.run = r.run and p.name = r.parent_router and r.parent_expert < p.experts) where r.parent_router is not null""",
    "every assignment names an expert of its router": """
        select count(*) from assignments a anti join experts e on (e.router = a.router and e.expert = a.expert)""",
    "no expert twice in a decision (unless the router repeats them)": """
        select count(*) from (select 1 from assignments a join routers r using (router)
        where r.kind <> 'soft' and not coalesce((r.extra->>'repeats')::boolean, false) and (a.weight is not null or r.contract
        = 'imported') group by a.forward, a.router, a.iteration, a.token, a.expert having count(*) > 1)""",
    "one decision per forward, router, iteration and token": """
        select count(*) from (select 1 from decisions group by forward, router, iteration, token having count(*) > 1)""",
    "selected experts add up to assignments": """
        select count(*) from (select run, router, sum(selected) as n from decisions group by all) d
        full join (select run, router, count(*) filter (not dropped) as n from assignments group by all) a using (run, router)
        where coalesce(d.n, 0) <> coalesce(a.n, 0)""",
    "weights fall with rank": """
        select count(*) from assignments a join assignments b
        on (a.forward = b.forward and a.router = b.router and a.iteration = b.iteration and a.token = b.token
        and b.rank = a.rank + 1) where b.weight > a.weight""",
    "experts of a decision whose order is not known have no rank, and every other has": """
        select count(*) from assignments a join routers r using (router)
        where (a.rank is null) <> coalesce(r.extra->>'ranks' = 'unknown', false)""",
    "runs that were imported say from what, and what they lack": """
        select count(*) from routers r join runs u using (run) where r.contract = 'imported'
        and u.capture is not null
        and (u.capture->>'imported' is null or (u.capture->'lacks') is null)""",
    "weights of a decision whose order is not known are all there or none is": """
        select count(*) from (select 1 from assignments where rank is null group by forward, router, iteration, token
        having count(weight) not in (0, count(*)))""",
    "kept sums equal the rows": """
        select count(*) from (from load_rollup where run not in (
          select run from runs where coalesce((capture->>'counts_only')::boolean, false))) l full join (
          select run, router, expert, count(*) filter (not dropped) as n from assignments group by all) a
        using (run, router, expert)
        where coalesce(l.assignments, 0) <> coalesce(a.n, 0)""",
    "counts of runs equal the rows": """
        select count(*) from runs r where r.decisions <> (select count(*) from decisions d where d.run = r.run)
        or r.tokens <> (select count(*) from tokens t where t.run = r.run)""",
    "positions of a sequence run from 0 without gaps": """
        select count(*) from (
          select 1 from tokens t anti join (select token from token_labels where kind = 'draft') d using (token)
          group by sequence
        having max(position) + 1 <> count(*) or min(position) <> 0)""",
    "no more places used than a buffer has": """
        select count(*) from assignments a join decisions d using (forward, router, iteration, token)
        join pools p on (p.forward = d.forward and p.router = d.router and p.pool = d.pool)
        where not a.dropped and a.buffer_position >= p.capacity""",
    "entropy is between 0 and the most its experts allow": """
        select count(*) from decisions d join routers r using (router) where isfinite(d.entropy)
        and (d.entropy < -1e-5 or d.entropy > ln(r.experts + coalesce((r.extra->>'special_experts')::int, 0)) + 1e-4)""",
}


@dataclass(frozen=True)
class Check:
    """One rule and how many rows break it."""

    rule: str
    broken: int


def verify(store: Store) -> list[Check]:
    """All checks on a store; it is sound when none is broken."""
    checks = []
    for table, key, home in _REFERENCES:
        sql = f"select count(*) from {table} t anti join {home} h on h.{key} = t.{key}"
        checks.append(Check(f"{table}.{key} is in {home}", store.rows(sql)[0][0]))
    for column in _KEYS:
        table, _, key = column.partition(".")
        checks.append(Check(f"{column} is unique", store.rows(f"select count(*) - count(distinct {key}) from {table}")[0][0]))
    checks += [Check(rule, store.rows(sql)[0][0]) for rule, sql in _ARITHMETIC.items()]
    return checks
