"""Middleware in front of every route: allowed hosts and origins, size and time of requests, security headers."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from energyql.files import read_whole
from energyql.studio.problems import StudioError, respond

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
REQUEST_SECONDS = 10.0
"""Time within which all of a request must arrive, in seconds."""
UPLOAD_SECONDS = 60.0
"""Time within which all of an upload, a picture, must arrive."""
MOST_UPLOADS = 4
"""Largest number of uploads at a time."""
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
        hosts: allowed host names.
        numbers: whether any IP address is allowed as a host too, for an application that other machines can reach.
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
        uploads: path that takes a picture as its body -> its media types.
        most_upload: most bytes of such a picture.
    """

    most: int
    uploads: Mapping[str, Collection[str]] = field(default_factory=dict)
    most_upload: int = 0


class Guard:
    """Middleware that refuses requests from pages of other sites, or that are too large, before any route is called.

    A page of another site can reach a server on this machine through the visitor's browser: directly, which the headers
    `Origin` and `Sec-Fetch-Site` show, or by DNS rebinding, where a foreign name is made to resolve to this machine,
    which the header `Host` shows. An IP address as a host cannot be rebound.

    A token is accepted from three places: the address of the page (`?token=`), which sets a cookie and redirects to the
    address without it; that cookie; and the header `Authorization`, as a bearer token.

    Args:
        app: the application behind it.
        access: who may use the application.
        bodies: limits of the bodies of requests.
    """

    def __init__(self, app: ASGIApp, access: Access, bodies: Bodies) -> None:
        self.app, self.access, self.bodies = app, access, bodies
        self._uploads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request that is refused; pass on any other, with security headers on its response."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        try:
            self._check_source(scope["method"], headers)
            if (entered := self._check_token(scope, headers)) is not None:
                await entered(scope, receive, send_with_headers)
                return
            if scope["method"] not in ("GET", "HEAD"):
                receive = await self._checked_body(scope, headers, receive)
        except StudioError as error:
            await respond(error)(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)

    def _check_token(self, scope: Scope, headers: Headers) -> Response | None:
        """Check the token of a request.

        Returns:
            The response that sets the cookie, if the token is in the address of the page; else `None`.

        Raises:
            StudioError: the request has no token, or a wrong one.
        """
        token = self.access.token
        if token is None:
            return None
        name = f"energyql-{(scope.get('server') or ('', 0))[1]}"  # browsers send a cookie to every port of a host
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        parameter = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if _same(parameter, token) and scope["method"] == "GET" and scope["path"] == "/":
            entered = RedirectResponse("/", 303)  # the browser keeps the part of the address after #
            entered.set_cookie(name, token, httponly=True, samesite="lax")
            return entered
        candidates = [parameter, cookie_parser(headers.get("cookie", "")).get(name, "")]
        if not any(_same(each, token) for each in (*candidates, bearer if kind.lower() == "bearer" else "")):
            hint = "open the address that the studio printed, or send the header Authorization: Bearer TOKEN"
            raise StudioError("NoToken", "the studio needs its token", hint=hint)
        return None

    async def _checked_body(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """Check the media type of a request and read its body; return a function that the application receives it from.

        Raises:
            StudioError: the type is wrong, the body too large or too slow, or too many pictures are on their way.
        """
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        kinds = self.bodies.uploads.get(scope["path"])
        if kinds is None:
            if scope["method"] != "DELETE" and kind != "application/json":
                hint = "send the header Content-Type: application/json"
                raise StudioError("NotJSON", "the request is not marked as JSON", hint=hint)
            return await self._read(headers, receive, self.bodies.most, REQUEST_SECONDS)
        if kind not in kinds:
            hint = f"send the header Content-Type: {', '.join(kinds)}"
            raise StudioError("NotJSON", "the request is not marked as a picture", hint=hint)
        if self._uploads >= MOST_UPLOADS:
            raise StudioError("Busy", f"{self._uploads} pictures are being sent already", hint="try again in a moment")
        self._uploads += 1
        try:
            return await self._read(headers, receive, self.bodies.most_upload, UPLOAD_SECONDS)
        finally:
            self._uploads -= 1

    def _check_source(self, method: str, headers: Headers) -> None:
        """Raise a `StudioError` if a request has a wrong host or comes from a page of another site."""
        host = headers.get("host", "")
        if _name(host) not in self.access.hosts and not (self.access.numbers and _address(_name(host))):
            raise StudioError(
                "Forbidden",
                f"this studio is not called {_name(host)[:80]!r}",
                hint="open it under the address that it printed, or start it with --allow-host NAME",
            )
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        if foreign or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            # A link on another site may open the page; requests that its scripts send are refused.
            target = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
            if method == "GET" and target == ("navigate", "document"):
                return
            hint = "send it from the studio's own page"
            raise StudioError("Forbidden", "the request comes from another site", hint=hint)

    async def _read(self, headers: Headers, receive: Receive, most: int, seconds: float) -> Receive:
        """Read all of a body, and return a function from which the application receives it.

        It is read here, so that a body without end is refused, whatever length its header names.

        Raises:
            StudioError: the body has more than `most` bytes, or takes more than `seconds`.
        """
        size, body, more = read_whole(headers.get("content-length", "")) or 0, bytearray(), True
        with anyio.move_on_after(seconds) as waiting:
            while more and size <= most:
                message = await receive()
                if message["type"] != "http.request":
                    break
                body += message.get("body", b"")
                more = message.get("more_body", False)
                size = max(size, len(body))
        if size > most:
            raise StudioError("TooLarge", f"the request is larger than {most // 1024:,} KiB")
        if waiting.cancelled_caught:
            raise StudioError("TooSlow", f"the request did not arrive within {seconds:g} seconds")
        is_sent = False

        async def replay() -> Message:
            nonlocal is_sent
            if is_sent:
                return await receive()
            is_sent = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        return replay


def _name(host: str) -> str:
    """Return the name in a `Host` header, without its port and without the brackets of IPv6."""
    name, _, port = host.rpartition(":")
    name = host if read_whole(port) is None else name
    return name.strip("[]").rstrip(".").lower()


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def access_to(host: str, extra: Collection[str] = (), token: str | None = None) -> Access:
    """Return the access to a web application that listens on `host`.

    If other machines can reach it, any IP address is allowed as a host, and a random token is needed by default.

    Args:
        host: name or address.
        extra: further host names.
        token: the token; empty for none, `None` for the default.
    """
    names, local = LOOPBACK | {host.lower(), *map(_name, extra)}, is_loopback(host)
    chosen = token if local or token is not None else secrets.token_urlsafe(24)
    return Access(names if local else names | {socket.gethostname().lower()}, not local, chosen or None)


def _same(given: str, wanted: str) -> bool:
    """Return whether two tokens are equal, in a time that does not depend on how many characters agree."""
    return secrets.compare_digest(given.encode(), wanted.encode())


def is_loopback(host: str) -> bool:
    """Return whether a server that listens on `host` can be reached from this machine only."""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)
