"""Middleware in front of every route: it checks host, origin, token, size and time, and adds security headers."""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from energyql.files import read_whole
from energyql.studio.problems import StudioError, respond

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
REQUEST_SECONDS = 10.0
"""Seconds within which a whole request in JSON must arrive."""
UPLOAD_SECONDS = 60.0
"""Seconds within which a whole request with a picture must arrive."""
MOST_UPLOADS = 4
"""Largest number of requests with pictures that arrive at the same time."""
JSON = ("application/json",)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use a web application.

    Attributes:
        hosts: host names that a request may have in its header `Host`.
        numbers: whether `Host` may also be any IP address, for an application that other machines can reach.
        token: the secret that a visitor must send; `None` if none is needed.
    """

    hosts: frozenset[str] = LOOPBACK
    numbers: bool = False
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Bodies:
    """Limits of the bodies of requests.

    Attributes:
        most: most bytes of a request in JSON.
        uploads: path of requests whose body is a picture -> media types that the picture may have.
        most_upload: most bytes of such a picture.
    """

    most: int
    uploads: Mapping[str, Collection[str]] = field(default_factory=dict)
    most_upload: int = 0


class Guard:
    """Middleware that refuses requests that come from other sites, lack the token, or are too large or too slow.

    Such requests reach no route. A page of another site can reach a server on this machine through the visitor's
    browser in two ways. The page may use an address of this machine, which the headers `Origin` and `Sec-Fetch-Site`
    show. Or the host name of the other site is made to resolve to this machine (DNS rebinding), which the header `Host`
    shows. A request whose `Host` is an IP address cannot come from DNS rebinding.

    A token is accepted from the address of the page (`?token=`), a cookie, or the header `Authorization` as a bearer
    token. If a browser opens the page with the token in the address, the response sets the cookie and redirects the
    browser to the address without the token.

    Args:
        app: the application that gets the requests that are not refused.
    """

    def __init__(self, app: ASGIApp, access: Access, bodies: Bodies) -> None:
        self.app, self.access, self.bodies = app, access, bodies
        self._uploads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, or respond with an error; any response gets security headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        request, respond_with = HTTPConnection(scope), self.app
        try:
            self._check_source(scope["method"], request.headers)
            respond_with = self._check_token(scope, request) or self.app
            if scope["method"] not in ("GET", "HEAD"):
                receive = await self._checked_body(scope, request.headers, receive)
        except StudioError as error:
            respond_with = respond(error)
        await respond_with(scope, receive, send_with_headers)

    def _check_source(self, method: str, headers: Headers) -> None:
        """Refuse requests to a host that is not allowed, and from other sites, except for links that open the page."""
        host = headers.get("host", "")
        name, origin = _name(host), headers.get("origin")
        if name not in self.access.hosts and not (self.access.numbers and _address(name)):
            hint = "open it under the address that it printed, or start it with --allow-host NAME"
            raise StudioError("Forbidden", f"this studio is not called {name[:80]!r}", hint=hint)
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        if foreign or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            # A link on another site may open the page; requests that its scripts send are refused.
            target = (method, headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
            if target != ("GET", "navigate", "document"):
                raise StudioError("Forbidden", "the request comes from another site")

    def _check_token(self, scope: Scope, request: HTTPConnection) -> Response | None:
        """Refuse requests without the token; for one with it in the address, return a response that sets a cookie."""
        token = self.access.token
        if token is None:
            return None
        name = f"energyql-{(scope.get('server') or ('', 0))[1]}"  # browsers send a cookie to every port of a host
        kind, _, bearer = request.headers.get("authorization", "").partition(" ")
        parameter = request.query_params.get("token", "")
        if _same(parameter, token) and (scope["method"], scope["path"]) == ("GET", "/"):
            entered = RedirectResponse("/", 303)  # the browser keeps the part of the address after #
            entered.set_cookie(name, token, httponly=True, samesite="lax")
            return entered
        candidates = [parameter, request.cookies.get(name, ""), bearer if kind.lower() == "bearer" else ""]
        if not any(_same(candidate, token) for candidate in candidates):
            hint = "open the address that the studio printed, or send the header Authorization: Bearer TOKEN"
            raise StudioError("NoToken", "the studio needs its token", hint=hint)
        return None

    async def _checked_body(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """Check the media type, read the body, and return a `receive` of ASGI that gives the application the body."""
        uploads = self.bodies.uploads.get(scope["path"])
        kind, kinds = headers.get("content-type", "").partition(";")[0].strip().lower(), uploads or JSON
        if kind not in kinds and scope["method"] != "DELETE":
            message = f"the request is not marked as {'a picture' if uploads else 'JSON'}"
            raise StudioError("NotJSON", message, hint=f"send the header Content-Type: {', '.join(kinds)}")
        if not uploads:
            return await self._read(headers, receive, self.bodies.most, REQUEST_SECONDS)
        if self._uploads >= MOST_UPLOADS:
            raise StudioError("Busy", f"{self._uploads} pictures are being sent already", hint="try again in a moment")
        self._uploads += 1
        try:
            return await self._read(headers, receive, self.bodies.most_upload, UPLOAD_SECONDS)
        finally:
            self._uploads -= 1

    async def _read(self, headers: Headers, receive: Receive, most: int, seconds: float) -> Receive:
        """Read a body of at most `most` bytes within `seconds`, and return a `receive` of ASGI that gives it again.

        The bytes are counted, so that a body without end is refused, whatever length the header names.
        """
        size, body, more = read_whole(headers.get("content-length", "")) or 0, bytearray(), True
        with anyio.move_on_after(seconds) as waiting:
            while more and size <= most:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)  # the message about a disconnection has no body
                size = max(size, len(body))
        if size > most:
            raise StudioError("TooLarge", f"the request is larger than {most // 1024:,} KiB")
        if waiting.cancelled_caught:
            raise StudioError("TooSlow", f"the request did not arrive within {seconds:g} seconds")
        whole = iter([{"type": "http.request", "body": bytes(body), "more_body": False}])

        async def replay() -> Message:
            return next(whole, None) or await receive()

        return replay


def _name(host: str) -> str:
    """Name in a `Host` header, without its port and without the brackets of IPv6."""
    return re.sub(":[0-9]+$", "", host).strip("[]").rstrip(".").lower()


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def access_to(host: str, extra: Collection[str] = (), token: str | None = None) -> Access:
    """Who may use a web application that listens on `host`.

    If other machines can reach it, the name of this machine and any IP address are allowed as hosts.

    Args:
        extra: further host names that are allowed.
        token: "" for none; by default a random one if other machines can reach the application, else none.
    """
    names, local = LOOPBACK | {host.lower(), *map(_name, extra)}, is_loopback(host)
    chosen = token if local or token is not None else secrets.token_urlsafe(24)
    return Access(names if local else names | {socket.gethostname().lower()}, not local, chosen or None)


def _same(one: str, other: str) -> bool:
    """Compare two tokens in a time that does not depend on how many characters agree."""
    return secrets.compare_digest(one.encode(), other.encode())


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)
