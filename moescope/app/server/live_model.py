"""The model of the page Try it: a `moescope serve` of this dashboard's own, started when it is first asked, or one elsewhere.

MOESCOPE_MODEL says which: nothing (the models that moescope ships), a MODEL as of `moescope trace`, the address of an endpoint
with its token, or `none`. What is started here ends with the dashboard, and after a while in which nobody asks.
"""

import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from moescope.app.server import shutdown, tied_process

DEFAULT, NONE = "mixtral", "none"
IDLE = 1800  # seconds
PACKAGE = Path(tied_process.__file__).parents[2]
_PLACE = re.compile(r"(http://[^\s/]+)/\?token=")
_SIGNALS = {signal.SIGKILL: "it was killed, perhaps for want of memory"}


@dataclass
class LiveModel:
    """Where the endpoint is: `where` is (address, token) once it is known, `why` says why it ended."""

    named: str = field(default_factory=lambda: os.environ.get("MOESCOPE_MODEL", ""))
    where: tuple[str, str] | None = None
    why: str = ""
    process: "subprocess.Popen[str] | None" = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _known: threading.Event = field(default_factory=threading.Event)

    @property
    def elsewhere(self) -> bool:
        """Whether somebody else runs it."""
        return self.named.startswith(("http://", "https://"))

    def ensure(self, seconds: float = 0.0) -> bool:
        """Start it unless it runs, and wait so long; whether it can be asked now. `why` says why it could not be started."""
        with self._lock:
            if self.elsewhere:
                parts = urlsplit(self.named)
                self.where = f"{parts.scheme}://{parts.netloc}", (parse_qs(parts.query).get("token") or [""])[0]
                return True
            if self.process is None or self.process.poll() is not None:
                self._start()
            known = self._known
        known.wait(seconds)
        return self.where is not None

    def _start(self) -> None:
        self.where, self.why, self._known = None, "", threading.Event()
        begun = threading.Event()
        threading.Thread(target=self._run, args=(begun, self._known), name="moescope-live", daemon=True).start()
        begun.wait(10)

    def _run(self, begun: threading.Event, known: threading.Event) -> None:
        """The process from its beginning to its end: it is tied to the thread that started it."""
        token = secrets.token_urlsafe(24)
        paths = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))
        named = self.named or DEFAULT
        arguments = ["serve", "model", named, "--shipped", "--idle", str(IDLE)]
        with tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                [sys.executable, "-P", tied_process.__file__, str(os.getpid()), *arguments],
                env=os.environ | {"MOESCOPE_LIVE_TOKEN": token, "PYTHONPATH": paths},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
            )  # fmt: skip
            self.process = process
            begun.set()
            assert process.stdout is not None
            for line in process.stdout:
                if self.process is process and (found := _PLACE.search(line)):
                    self.where = found[1], token
                    known.set()
            code = process.wait()
            errors.seek(0)
            if self.process is process:
                self.where, self.why = None, ended(code, errors.read())
                known.set()

    def stop(self) -> None:
        """End it."""
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)


def ended(code: int, said: str) -> str:
    """Why a process ended, in one sentence; nothing where it ended as it should."""
    if code in (0, -signal.SIGTERM, 128 + signal.SIGTERM):
        return ""
    if code < 0:
        why = _SIGNALS.get(signal.Signals(-code), f"signal {-code}")
        return f"the model's process ended ({why}): run the prompt once more, and it starts anew"
    lines = [line.removeprefix("moescope: ") for line in said.splitlines() if line.startswith("moescope: ")]
    return lines[-1] if lines else f"the model's process ended (exit {code}): run the prompt once more, and it starts anew"


model = LiveModel()
shutdown.last(model.stop)
