"""An applier that sleeps, is prompted over HTTP (`POST /poll`), and polls now and then by itself.

What a prompt brings is never trusted for anything: it says "look now", and the answer says where
the target stands. A prompt that comes while changes are applied leads to one more look.
"""

import hmac
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any

import orjson

from ops import journal
from ops.applying import TRIES, run_apply
from ops.compose import target_config
from ops.config import Config, TargetConfig
from ops.supervise import Signals
from schemas.change import Batch
from schemas.errors import Fenced, Misconfigured, Transient

PATH = "/poll"
BODY_BYTES = 1024
REQUEST_S = 5.0
"""So long a client may be silent."""
REQUESTS = 8
"""So many are served at once; more are sent away, and the prompt of one is everybody's."""
HEED_S = 0.5
"""How often a sleeper looks for signals."""


class Prompts:
    """Whether somebody prompted, and what is answered: where the target stands."""

    def __init__(self, target: str, settings: TargetConfig) -> None:
        self.token = settings.prompt_token or ""
        self.asked = threading.Event()
        self._place: dict[str, Any] = {"target": target, "source": settings.source}
        self._place |= dict.fromkeys(("batch", "position", "offset", "paused", "error"))
        self._place["applying"] = False

    def note(self, **facts: object) -> None:
        """Keep these facts for the next answer."""
        self._place = self._place | facts

    def answer(self) -> bytes:
        """Where the target stands, as JSON."""
        return orjson.dumps(self._place)


class _Handler(BaseHTTPRequestHandler):
    """One request. The order of refusals tells a stranger nothing but that /poll takes POST."""

    timeout = REQUEST_S
    server_version, sys_version = "headwater", ""
    prompts: Prompts

    def do_POST(self) -> None:
        given = self.headers.get("Authorization", "").encode("latin-1", "replace")
        size = self.headers.get("Content-Length", "0")
        if self.path != PATH:
            self._say(404)
        elif not hmac.compare_digest(given, b"Bearer " + self.prompts.token.encode()):
            self._say(401, header=("WWW-Authenticate", "Bearer"))
        elif "Transfer-Encoding" in self.headers or not size.isdecimal():
            self._say(411)
        elif len(size) > 9 or int(size) > BODY_BYTES:
            self._say(413)
        else:
            self.rfile.read(int(size))
            self.prompts.asked.set()
            self._say(202, self.prompts.answer())

    def _refuse(self) -> None:
        if self.path == PATH:
            self._say(405, header=("Allow", "POST"))
        else:
            self._say(404)

    # The names by which http.server calls them.
    do_GET = do_HEAD = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse  # noqa: N815

    def _say(self, status: int, body: bytes = b"", header: tuple[str, str] | None = None) -> None:
        self.send_response(status)
        if header is not None:
            self.send_header(*header)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """No line a request: what a prompt leads to is said by the apply."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._room = threading.BoundedSemaphore(REQUESTS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no error of ours."""


@contextmanager
def listening_at(address: str, prompts: Prompts) -> Iterator[int]:
    """Take prompts at host:port until the end; the port. Raises Misconfigured where it cannot."""
    host, _, port = address.rpartition(":")
    handler = type("Handler", (_Handler,), {"prompts": prompts})
    try:
        server = _Server((host.strip("[]"), int(port)), handler)
    except OSError as error:
        raise Misconfigured(
            f"cannot listen for prompts at {address}: {error.strerror}",
            hint="name another prompt_listen, or end what listens there",
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run_on_prompt(config: Config, name: str, signals: Signals, *, every_s: float) -> None:
    """Apply to the log's end at the start, at each prompt, and so long after the last time.

    In between nothing is connected. What is Transient is tried again at the next turn; what a
    person must mend ends it, as it ends `headwater apply`.
    """
    settings = target_config(config, name)
    if not settings.prompt_listen:
        raise Misconfigured(
            f"was not told where to listen for prompts of {name}",
            hint=f'set targets.{name}.prompt_listen = "host:port" and prompt_token',
        )
    prompts = Prompts(name, settings)

    def seen(batch: Batch) -> None:
        prompts.note(batch=batch.batch, position=batch.position, offset=batch.offset)

    with listening_at(settings.prompt_listen, prompts) as port:
        journal.get(target=name).info("listens", port=port, every_s=every_s)
        while True:
            prompts.asked.clear()
            prompts.note(applying=True)
            try:
                done = run_apply(config, name, signals, once=True, tries=TRIES, seen=seen)
            except (Transient, Fenced) as error:
                journal.get(target=name).warning("next_turn", after=str(error))
                prompts.note(error=str(error))
            else:
                place = {"batch": done.batch, "position": done.position, "offset": done.offset}
                prompts.note(error=None, paused=done.paused is not None, **place)
            prompts.note(applying=False)
            journal.get(target=name).debug("sleeps")
            _sleep(prompts.asked, signals, every_s)


def _sleep(asked: threading.Event, signals: Signals, seconds: float) -> None:
    """Until a prompt or the time; raises Stop at a signal."""
    ends_at = monotonic() + seconds
    while not asked.is_set() and (left := ends_at - monotonic()) > 0:
        asked.wait(min(left, HEED_S))
        signals.heed()
