"""What may be said of an outcome of a hostile case: the oracle."""

import re

from arena import Outcome
from hostile import Case

SPOKEN = {"verify", "families", "analyze"}  # say on standard output what is not sound, with exit code 1
MEMORY = 3 << 30
NOISE = re.compile(r"Traceback|warnings\.warn|panicked at|it/s\]|Exception ignored|^(?!moescope: ).*(Error|Warning):", re.M)


def wrong(case: Case, outcome: Outcome) -> str:
    """What is wrong with how a case ended; '' for nothing."""
    lines = [line for line in outcome.err.splitlines() if "━" not in line]  # how far a trace had come
    if outcome.code is None:
        return "hangs"
    if outcome.code not in (0, 1, 2):
        return f"exit code {outcome.code}"
    if NOISE.search(outcome.err):
        return "noise"
    if outcome.bytes > MEMORY:
        return "memory"
    if any("UNPICKLED" in name for name in outcome.changed):
        return "unpickled"
    if outcome.code and outcome.changed and "moescope recover" not in outcome.err:
        return f"changed {re.sub('[0-9a-f]{8,}', '#', ' '.join(outcome.changed))[:60]}"
    if outcome.code and not (len(lines) == 1 and lines[0].startswith("moescope: ") and len(lines[0]) > 20):
        return "" if not lines and outcome.out and case.args[0] in SPOKEN else f"{len(lines)} lines"
    return ""
