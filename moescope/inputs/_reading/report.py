"""What a reader says beside its examples: what it passed over, and what it left out as bad."""

from collections import Counter
from dataclasses import dataclass, field

from ...errors import InputError

_TOLD = 3  # bad things that are told in full


@dataclass
class Report:
    """What was passed over (by file and reason), what was left out as bad, and a digest where the files give none."""

    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)
    sha256: str | None = None
    skip_bad: bool = False  # leave bad input out, instead of refusing
    left_out: Counter[str] = field(default_factory=Counter)  # by file
    told: list[str] = field(default_factory=list)

    def skip(self, source: str, what: str, n: int = 1) -> None:
        """Count n things skipped in source; `what` names the kind in the plural: 'empty lines'."""
        if n:
            self.skipped[source, what] += n

    def bad(self, source: str, error: InputError) -> None:
        """Count what cannot be used, if it is to be left out; else raise the error that says what it is."""
        if not self.skip_bad:
            raise error
        self.left_out[source] += 1
        if len(self.told) < _TOLD:
            self.told.append(str(error).rstrip("."))

    def warnings(self) -> tuple[str, ...]:
        """One sentence for each reason: how many, and in which files."""
        sources: dict[str, dict[str, int]] = {}
        for (source, what), n in self.skipped.items():
            if n:
                sources.setdefault(what, {})[source] = n
        said = [f"{what[:1].upper()}{what[1:]} skipped: {_where(counts)}." for what, counts in sources.items()]
        return (*said, *self.bad_words())

    def bad_words(self) -> list[str]:
        """One sentence on bad input that was left out, if there was any."""
        if not self.left_out:
            return []
        more = self.left_out.total() - len(self.told)
        told = "; ".join(self.told) + (f"; and {more} more" if more else "")
        return [f"Bad input left out: {_where(self.left_out)} ({told})."]


def _where(counts: dict[str, int] | Counter[str]) -> str:
    names = list(counts)
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{sum(counts.values())} in {shown}"
