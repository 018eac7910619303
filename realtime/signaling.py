"""HTTP: the page, offer and answer, the end of a viewer, health and numbers. The only HTTP here.

    GET    /                                the page, with its script and style beside it
    POST   /offer                           {sdp, session?, codec?, barcode?, controls?}
                                            -> {sdp, type: "answer", session, viewer}
    DELETE /sessions/{id}/viewers/{vid}     ends one viewer
    GET    /livez                           200 while the event loop answers
    GET    /stats                           sessions, stages, counters, descriptors, tasks
    GET    /schema                          the controls, their ranges and units
    GET    /thumbnails/{model}/{seed}.jpg   a small still picture

A refusal is JSON: {"error": a stable code, "message": one sentence that says what to do}.

There is no log-in yet, so what a page of another origin could do is closed off: the Host header
must be an address or this machine's own name (else a foreign name that resolves to 127.0.0.1 would
be the same origin), Origin must be ours where a browser sends one, bodies must be declared as JSON,
which another origin cannot send without being asked first, and what a browser says another site's
page asks for is refused but for the page itself, since a picture alone would already cost a draw.
Offers are limited per address.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import logging
import math
import re
import socket
import time
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from models.errors import ModelError
from realtime.config import ServerConfig
from realtime.errors import RealtimeError, SignalingError
from realtime.offer_limit import OfferLimit
from realtime.sdp import quote

log = logging.getLogger(__name__)

WEB = Path(__file__).with_name("web")
BODY_SECONDS = 10.0  # a body that comes slower is given up
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "media-src 'self' blob:; connect-src 'self'; object-src 'none'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class OfferRequest:
    """The body of `POST /offer`, checked for shape only."""

    sdp: str
    session: str | None = None  # join this one
    codec: str | None = None
    barcode: bool = False
    controls: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, body: bytes) -> OfferRequest:
        """Raises SignalingError for whatever is not such an object."""
        try:
            values = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise SignalingError(
                "The body is not JSON; send {sdp: ...}.", code="bad_json"
            ) from error
        if not isinstance(values, dict):
            raise SignalingError("The body is not a JSON object; send {sdp: ...}.", code="bad_json")
        values.pop("type", None)  # an RTCSessionDescription, serialised, brings it along
        kinds = {"sdp": str, "session": str, "codec": str, "barcode": bool, "controls": dict}
        for name, value in list(values.items()):
            if name not in kinds:
                raise SignalingError(
                    f"The field {quote(name)} is unknown; known are {', '.join(kinds)}.",
                    code="unknown_field",
                )
            if value is None:
                del values[name]
            elif not isinstance(value, kinds[name]):
                raise SignalingError(
                    f"The field {name} must be a {_KIND_WORDS[kinds[name]]}.", code="bad_field"
                )
        if "sdp" not in values:
            raise SignalingError(
                "The field sdp is missing; send the offer in it.", code="bad_field"
            )
        if not _ID.fullmatch(values.get("session", "x")):
            raise SignalingError(
                "The session id is not one of ours; leave it out to begin anew.", 404
            )
        return cls(**values)


_KIND_WORDS: dict[type, str] = {str: "string", bool: "boolean", dict: "object"}


@dataclass(frozen=True)
class Answer:
    """What `POST /offer` gives back."""

    sdp: str
    session: str
    viewer: str


class Desk(Protocol):
    """What HTTP needs of the server behind it."""

    config: ServerConfig

    async def answer(self, request: OfferRequest) -> Answer: ...
    async def leave(self, session: str, viewer: str) -> None: ...
    async def thumbnail(self, model: str, seed: int) -> bytes: ...
    def stats(self) -> dict[str, Any]: ...
    def schema(self) -> list[dict[str, Any]]: ...


# ---- who may ask


def host_allowed(header: str, bound: str) -> bool:
    """Whether a Host header may be served: an IP address, localhost, or a name of this machine.

    A page that wants to reach a loop-back server by DNS rebinding needs a name of its own there.
    """
    try:
        name = urllib.parse.urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in {"localhost", bound.lower(), socket.gethostname().lower()}
    return True


def origin_allowed(origin: str | None, host: str) -> bool:
    """Whether a state-changing request comes from our own page, or from a program (no Origin)."""
    if origin is None:
        return True
    try:
        parts = urllib.parse.urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


# ---- the application

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(desk: Desk) -> web.Application:
    """The routes over `desk`. Reads the page's files once, here."""
    routes = _Routes(desk)
    app = web.Application(
        # JSON writes a line end as four bytes, so a body may be larger than its offer.
        client_max_size=2 * desk.config.offer_bytes + 16_384,
        middlewares=[_guard(desk.config.host)],
    )
    app.router.add_post("/offer", routes.offer)
    app.router.add_delete("/sessions/{session}/viewers/{viewer}", routes.leave)
    app.router.add_get("/livez", routes.livez)
    app.router.add_get("/stats", routes.stats)
    app.router.add_get("/schema", routes.schema)
    app.router.add_get(r"/thumbnails/{model}/{seed:\d{1,10}}.jpg", routes.thumbnail)
    app.router.add_get("/", routes.page)
    app.router.add_get("/{name}", routes.page)
    return app


class _Routes:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._offers = OfferLimit(desk.config.offers_per_s, desk.config.offers_burst)
        self._files = {
            path.name: (body := path.read_bytes(), TYPES[path.suffix], f'"{_digest(body)}"')
            for path in sorted(WEB.glob("*"))
            if path.suffix in TYPES
        }

    async def offer(self, request: web.Request) -> web.Response:
        wait_s = self._offers.wait_s(request.remote or "", time.monotonic_ns())
        if wait_s:
            retry_s = math.ceil(wait_s)
            raise SignalingError(
                f"Too many offers came from your address; try again in {retry_s} s.",
                429,
                "too_many_offers",
                retry_s=retry_s,
            )
        if request.content_type != "application/json":
            raise SignalingError(
                "Send the offer as JSON, with Content-Type: application/json.", 415, "not_json"
            )
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await request.read()
        except TimeoutError as error:
            raise SignalingError(
                f"The body did not come within {BODY_SECONDS:.0f} s; send it again.",
                408,
                "too_slow",
            ) from error
        answer = await self._desk.answer(OfferRequest.from_json(body))
        return web.json_response(
            {
                "sdp": answer.sdp,
                "type": "answer",
                "session": answer.session,
                "viewer": answer.viewer,
            }
        )

    async def leave(self, request: web.Request) -> web.Response:
        await self._desk.leave(request.match_info["session"], request.match_info["viewer"])
        return web.json_response({"closed": True})

    async def livez(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def stats(self, request: web.Request) -> web.Response:
        return web.json_response(self._desk.stats())

    async def schema(self, request: web.Request) -> web.Response:
        return web.json_response(self._desk.schema())

    async def thumbnail(self, request: web.Request) -> web.Response:
        seed = int(request.match_info["seed"])
        if seed >= 2**32:
            raise SignalingError(f"The seed is {seed}; it must be below 2**32.", code="bad_seed")
        body = await self._desk.thumbnail(request.match_info["model"], seed)
        headers = {"Cache-Control": "private, max-age=3600"}
        return web.Response(body=body, content_type="image/jpeg", headers=headers)

    async def page(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name") or "index.html"
        if name not in self._files:
            raise SignalingError(
                f"There is no {quote(name)} here; the page is at /.", 404, "not_found"
            )
        body, kind, tag = self._files[name]
        headers = {"Content-Type": kind, "ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, headers=headers)


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]


def _guard(bound: str) -> Any:
    """The middleware: who may ask, errors as JSON with a sentence, the headers on everything."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _check_caller(request, bound)
            response = await handler(request)
        except SignalingError as error:
            response = refusal(error.status, error.code, str(error), error.retry_s)
        except web.HTTPException as error:
            response = _http_refusal(error)
        except (ModelError, RealtimeError) as error:
            log.warning("%s %s: %s", request.method, _where(request), error)
            response = refusal(503, "unavailable", f"This cannot be done now: {error}")
        except Exception:
            log.exception("%s %s failed", request.method, _where(request))
            response = refusal(500, "internal", "The server failed; its log says why. Try again.")
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    return guard


def _where(request: web.Request) -> str:
    """The address for the log: the route's own form, since what callers put in it may be a secret
    (a session's id) or, decoded, hold line ends."""
    resource = request.match_info.route.resource
    return quote(request.path) if resource is None else resource.canonical


def _check_caller(request: web.Request, bound: str) -> None:
    host = request.headers.get("Host", "")
    if not host_allowed(host, bound):
        raise SignalingError(
            f"This server does not answer to the name {quote(host)}; open it by its address.",
            403,
            "foreign_host",
        )
    # A link to the page may stand anywhere. Of ports of one host browsers say "same-site".
    if request.path != "/" and request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
        raise SignalingError(
            "This request comes from another site's page; open the server's own page.",
            403,
            "foreign_site",
        )
    if request.method not in ("GET", "HEAD") and not origin_allowed(
        request.headers.get("Origin"), host
    ):
        raise SignalingError(
            "This request comes from another site's page; open the server's own page.",
            403,
            "foreign_origin",
        )


def refusal(status: int, code: str, message: str, retry_s: int = 0) -> web.Response:
    retry_s = retry_s or (2 if status == 503 else 0)
    headers = {"Retry-After": str(retry_s)} if retry_s else {}
    return web.json_response({"error": code, "message": message}, status=status, headers=headers)


def _http_refusal(error: web.HTTPException) -> web.StreamResponse:
    match error.status:
        case 404:
            return refusal(404, "not_found", "There is nothing at this address; the page is at /.")
        case 405:
            response = refusal(405, "bad_method", "This address takes another HTTP method.")
            response.headers["Allow"] = error.headers.get("Allow", "")
            return response
        case 413:
            return refusal(413, "offer_too_large", "The body is too large; offer less media.")
        case _:
            return refusal(error.status, "refused", f"The request is refused: {error.reason}.")


# ---- listening


def bind(host: str, port: int) -> socket.socket:
    """A bound socket, not listening yet, so that a taken port is told before models are loaded.

    Raises:
        RealtimeError: The address is not ours, or the port is taken; says which, and what to do.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise RealtimeError(f"The host {host!r} is not an address here: {error}.") from error
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        return sock
    except OSError as error:
        sock.close()
        raise _no_port(host, port, error) from error


def _no_port(host: str, port: int, error: OSError) -> RealtimeError:
    return RealtimeError(
        f"Cannot listen on {host} port {port}: {error.strerror or error}. "
        "Choose another with --port, or stop the program that uses it."
    )


@asynccontextmanager
async def listening(desk: Desk, sock: socket.socket) -> AsyncIterator[str]:
    """Serve `desk` on a bound socket while the context lasts; gives the URL. Closes the socket.

    Raises:
        RealtimeError: Another program began to listen there in the meantime.
    """
    runner = web.AppRunner(application(desk), access_log=None, shutdown_timeout=1.0)
    try:
        await runner.setup()
        host, port = sock.getsockname()[:2]
        try:
            await web.SockSite(runner, sock).start()
        except OSError as error:
            raise _no_port(host, port, error) from error
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    finally:
        await runner.cleanup()
        sock.close()
