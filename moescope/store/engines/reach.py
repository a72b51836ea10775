"""Whether anybody answers where a cluster is said to be: its own client would ask for a quarter of an hour."""

import re
import socket

from ...errors import InputError

PATIENCE_S = 10.0
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/,\[\]]+):([0-9]{1,5})")


def check_answers(cluster: str, address: str, scheme: str, forms: str) -> None:
    """InputError unless one of the hosts of `HOST:PORT[,HOST:PORT]`, behind `scheme://` or not, takes a connection.

    forms: what can be said instead.
    """
    found = [_HOST.fullmatch(part) for part in address.removeprefix(f"{scheme}://").rstrip("/").split(",")]
    hosts = [(one[1].strip("[]"), int(one[2])) for one in found if one is not None]
    if len(hosts) < len(found):
        raise InputError(f"{address!r} is no address of a cluster of {cluster}; say {forms}")
    tried = [_tried(host) for host in hosts]
    if all(tried):
        raise InputError(f"there is no cluster of {cluster} at {address}: {tried[0]}")


def _tried(host: tuple[str, int]) -> str:
    """Why it takes no connection; nothing where it does."""
    try:
        socket.create_connection(host, PATIENCE_S).close()
    except TimeoutError:
        return f"no answer in {PATIENCE_S:.0f} seconds"
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        return f"{why[:1].lower()}{why[1:]}"
    return ""
