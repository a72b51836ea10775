"""What a run's routers are, and what its forwards were told, in words for a list of runs and a report."""

from dataclasses import dataclass

from .reader import Store

WORDS = {
    "token_choice": "token choice", "expert_choice": "expert choice", "soft": "soft slots", "static": "static choice",
    "hash": "hashing", "dense": "dense mixtures (all experts run)", "tree": "trees", "global": "one pool of tokens and experts",
    "depth": "depth (blocks that run or not)", "sampled": "sampling",
}  # fmt: skip


@dataclass(frozen=True)
class Described:
    """kinds: {kind: routers}. branches: routers that are an expert of another one. conditions: {kind: values}."""

    kinds: dict[str, int]
    branches: int
    conditions: dict[str, int]

    @property
    def plain(self) -> bool:
        """Tokens choose experts, and nothing else is to be said."""
        return set(self.kinds) <= {"token_choice"} and not self.branches and not self.conditions

    @property
    def words(self) -> str:
        """As in "2 routers of trees; forwards were told timestep (5 values)"."""
        said = [f"{_routers(n)} of {WORDS.get(kind, kind)}" for kind, n in self.kinds.items()]
        if self.branches:
            said.append(f"{_routers(self.branches)} below another as its expert (leaves: view leaf_weight)")
        if self.conditions:
            told = ", ".join(f"{kind} ({n} value{'s' * (n != 1)})" for kind, n in self.conditions.items())
            said.append(f"forwards were told {told}")
        return "; ".join(said)


def _routers(n: int) -> str:
    return f"{n} router{'s' * (n != 1)}"


def described(store: Store, run: int) -> Described:
    """Of one run."""
    kinds = store.rows(
        "select coalesce(kind, 'unknown'), count(*) from routers where run = ? group by 1 order by 2 desc, 1", [run]
    )
    branches = store.rows("select count(*) from routers where run = ? and parent_router is not null", [run])[0][0]
    told = "select kind, count(distinct coalesce(label, value::varchar)) from conditions where run = ? group by 1 order by 1"
    return Described(dict(kinds), int(branches), dict(store.rows(told, [run])))
