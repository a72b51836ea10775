"""One question to a store: exactly one statement, and one that only reads."""

import duckdb

from ..errors import InputError

_READS = {"SELECT", "EXPLAIN", "CALL", "PRAGMA", "MULTI"}  # MULTI is what DuckDB makes of PIVOT


def one_question(query: str) -> str:
    """The query itself. InputError where it holds no statement, several, or one that writes or sets something."""
    try:
        found = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise unanswered(error) from error
    if not found:
        raise InputError('the query is empty; ask something, such as "from load_balance"')
    if len(found) > 1:
        raise InputError(f"the query holds {len(found)} statements; ask one at a time")
    kind = str(found[0].type.name)
    if kind not in _READS:
        raise InputError(f"moescope sql only reads, and {kind} is no question; ask with SELECT or FROM")
    if found[0].named_parameters:
        raise InputError(
            f"the query has parameters ({', '.join(sorted(found[0].named_parameters))}) and nothing fills them; write values"
        )
    return query


def unanswered(error: duckdb.Error) -> InputError:
    """DuckDB's complaint as a sentence."""
    return InputError(f"the query cannot be answered: {' '.join(str(error).split())[:400] or type(error).__name__}")
