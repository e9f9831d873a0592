"""Middleware in front of every route: allowed hosts and origins, size and time of requests, security headers."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from energyql.studio.problems import StudioError, respond

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
REQUEST_SECONDS = 10.0
"""Time within which all of a request must arrive."""
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


class Guard:
    """Refuse requests that are sent by pages of other sites, or that are too large, before any route sees them.

    A page of another site can reach a server on this machine through the visitor's browser: directly, which the headers
    `Origin` and `Sec-Fetch-Site` show, or by DNS rebinding, where a foreign name is made to resolve to this machine,
    which the header `Host` shows. An IP address as a host cannot be rebound.

    Args:
        app: the application behind it.
        hosts: allowed host names.
        numbers: whether any IP address is allowed as a host too, for a studio that other machines can reach.
        body: largest request body, in bytes.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], numbers: bool, body: int) -> None:
        self.app, self.hosts, self.numbers, self.body = app, frozenset(hosts), numbers, body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is refused; pass on any other, with security headers on its response."""
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
            if scope["method"] not in ("GET", "HEAD"):
                kind = headers.get("content-type", "").partition(";")[0].strip().lower()
                if scope["method"] != "DELETE" and kind != "application/json":
                    hint = "send the header Content-Type: application/json"
                    raise StudioError("NotJSON", "the request is not marked as JSON", hint=hint)
                receive = await self._read(headers, receive)
        except StudioError as error:
            await respond(error)(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)

    def _check_source(self, method: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if _name(host) not in self.hosts and not (self.numbers and _address(_name(host))):
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

    async def _read(self, headers: Headers, receive: Receive) -> Receive:
        """Read the whole body first, so that an endless one is refused whatever length it claims."""
        claimed = headers.get("content-length", "0")
        size, body, more = int(claimed) if claimed.isdigit() else 0, bytearray(), True
        with anyio.move_on_after(REQUEST_SECONDS) as waiting:
            while more and size <= self.body:
                message = await receive()
                if message["type"] != "http.request":
                    break
                body += message.get("body", b"")
                more = message.get("more_body", False)
                size = max(size, len(body))
        if size > self.body:
            raise StudioError("TooLarge", f"the request is larger than {self.body // 1024} KiB")
        if waiting.cancelled_caught:
            raise StudioError("TooSlow", f"the request did not arrive within {REQUEST_SECONDS:g} seconds")
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        return replay


def _name(host: str) -> str:
    """Return the name in a `Host` header, without its port and without the brackets of IPv6."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    return name.strip("[]").rstrip(".").lower()


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def known_hosts(host: str, extra: Collection[str] = ()) -> tuple[frozenset[str], bool]:
    """Return the allowed host names of a studio that listens on `host`, and whether any IP address is allowed."""
    names = LOOPBACK | {host.lower(), *map(_name, extra)}
    return (names, False) if is_loopback(host) else (names | {socket.gethostname().lower()}, True)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on this host."""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)
