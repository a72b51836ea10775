"""The door as a server."""

import socket

import uvicorn

from ...errors import InputError
from ...foreign import said
from .proxy import Door, Keeps


def serve(upstream: str, keeper: Keeps, host: str, port: int, header: str) -> None:
    """Listen until Ctrl-C. InputError where the address cannot be listened at."""
    try:
        listening = socket.create_server((host, port), backlog=1024, reuse_port=False)
    except OSError as error:
        raise InputError(f"nothing can listen at {host}:{port} ({said(error)}); give another --port or --host") from error
    app = Door(upstream, keeper, header).app()
    config = uvicorn.Config(app, log_level="warning", access_log=False, ws="none", timeout_graceful_shutdown=5)
    with listening:
        uvicorn.Server(config).run(sockets=[listening])
