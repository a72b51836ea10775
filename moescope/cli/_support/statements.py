"""One question to a store: exactly one statement, and one that only reads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import duckdb

from ...errors import InputError

_READS = {"SELECT", "EXPLAIN", "CALL", "PRAGMA", "MULTI"}  # MULTI is what DuckDB makes of PIVOT


def one_question(query: str) -> str:
    """The query without what follows its statement. InputError for no statement, for several, for one that writes."""
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
    return _bare(query)


def _bare(query: str) -> str:
    """Without the semicolons and comments at the end: what asks for the first rows puts brackets around it."""
    text = query.encode()
    for start, kind in reversed(duckdb.tokenize(query)):  # in bytes
        if kind != duckdb.token_type.comment and text[start : start + 1] != b";":
            break
        text = text[:start]
    return text.decode()


def unanswered(error: duckdb.Error) -> InputError:
    """DuckDB's complaint as a sentence."""
    return InputError(f"the query cannot be answered: {' '.join(str(error).split())[:400] or type(error).__name__}")


def interruptible(con: duckdb.DuckDBPyConnection, answer: Callable[[], Any]) -> Any:
    """What `answer()` gives while it asks `con`; Ctrl-C breaks it off, which DuckDB by itself heeds in some calls only."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(answer)
        try:
            return future.result()
        except KeyboardInterrupt:
            while wait([future], 0.1).not_done:
                con.interrupt()
            raise
