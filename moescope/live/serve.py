"""The endpoint as a server."""

import socket
from collections.abc import Callable

import uvicorn

from ..errors import InputError
from ..foreign import said
from .desk import Desk
from .endpoint import Endpoint


def serve(
    make: Callable[[], Desk], host: str, port: int, token: str, begun: Callable[[str], object], idle: float | None = None
) -> None:
    """Listen until Ctrl-C, SIGTERM or `idle` seconds without a request. `begun` is told the address before a model is loaded.

    InputError where the address cannot be listened at, and where none of the models can be loaded.
    """
    try:
        listening = socket.create_server((host, port), backlog=128, reuse_port=False)
    except OSError as error:
        raise InputError(f"nothing can listen at {host}:{port} ({said(error)}); give another --port or --host") from error
    with listening:
        begun(f"http://{host}:{listening.getsockname()[1]}")
        desk = make()
        endpoint = Endpoint(desk, token, idle, end=lambda: setattr(server, "should_exit", True))
        config = uvicorn.Config(endpoint.app(), log_level="warning", access_log=False, ws="none", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        server.run(sockets=[listening])
    if why := desk.hopeless():
        raise InputError(why)
