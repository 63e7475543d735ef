"""Who may look and who may command: tokens, cookies, and where a request may come from.

A link with a token is printed at the start. It is traded for a cookie once, so that the token
does not stay in the address bar. The cookie is out of reach of scripts (``HttpOnly``) and is not
sent with requests that other sites cause (``SameSite=Strict``). Everything that changes something
also has to name this console as its ``Origin``, and every request has to name it as its ``Host``,
so that neither another page nor a name that was made to point here (DNS rebinding) gets through.

Who is not signed in gets one answer a connection: a few hundred with many requests in a row would
keep the server busy, and whoever wants STOP waiting.
"""

import hashlib
import hmac
from collections.abc import Mapping
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from starlette.datastructures import Headers
from starlette.requests import Request, cookie_parser
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from semagent.console.answers import in_words
from semagent.console.shell import again_page, login_page

_OPEN = ("/static/", "/favicon.ico")
_READING = ("GET", "HEAD")
_LONGEST_FORM = 4096
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; style-src 'self'; connect-src 'self'; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Level(StrEnum):
    """What somebody may do."""

    OPERATOR = "operator"
    VIEWER = "viewer"


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """The secrets of one run."""

    operator: str
    viewer: str

    def __repr__(self) -> str:
        return "Tokens(…)"

    def level(self, token: str) -> Level | None:
        """What a token opens; ``None`` for a wrong one."""
        return self._match(token, {self.operator: Level.OPERATOR, self.viewer: Level.VIEWER})

    def cookie(self, level: Level) -> str:
        """What a browser keeps in place of the token."""
        token = self.operator if level is Level.OPERATOR else self.viewer
        return hmac.new(token.encode(), b"semagent console", hashlib.sha256).hexdigest()

    def level_of_cookie(self, value: str) -> Level | None:
        """What a cookie opens; ``None`` for a wrong one."""
        return self._match(value, {self.cookie(level): level for level in Level})

    @staticmethod
    def _match(given: str, known: dict[str, Level]) -> Level | None:
        found = None
        for secret, level in known.items():  # all of them, so that time says nothing
            if hmac.compare_digest(given.encode(), secret.encode()):
                found = level
        return found


def level_of(scope: Scope) -> Level:
    """What whoever sent this request may do."""
    level: Level = scope["semagent.level"]
    return level


def why_not(request: Request) -> tuple[str, int] | None:
    """Why a wish is not even read, and with which status; ``None`` if it may be.

    A form on a page of somebody else cannot send JSON.
    """
    if level_of(request.scope) is not Level.OPERATOR:
        return "this link is for looking only", 403
    if not request.headers.get("content-type", "").startswith("application/json"):
        return "a wish is sent as application/json", 415
    return None


class Gatekeeper:
    """ASGI middleware in front of everything the console serves.

    Args:
        app: what is behind it.
        tokens: who is let in.
        hosts: values of ``Host`` that are answered.
        port: where the console listens; part of the cookie's name, for browsers keep one jar
            for all ports of a machine.
        secure: the console speaks TLS itself.
    """

    def __init__(
        self, app: ASGIApp, *, tokens: Tokens, hosts: frozenset[str], port: int, secure: bool
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._hosts = hosts
        self._cookie = f"semagent-{port}"
        self._secure = secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._judge_source(scope, headers) or _lead_on(scope, headers)
        if refusal is None and scope["type"] == "http":
            refusal = await self._sign_in(scope, receive)
        level = self._level(headers)
        is_open = scope["type"] == "http" and scope["path"].startswith(_OPEN)
        if refusal is None and level is None and not is_open:
            refusal = HTMLResponse(login_page(), status_code=401)
        send = _with_headers(send, _HEADERS if level else {**_HEADERS, "Connection": "close"})
        if refusal is not None:
            await self._refuse(refusal, scope, receive, send)
            return
        scope["semagent.level"] = level
        await self._app(scope, receive, send)

    def _judge_source(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "").lower()
        if host not in self._hosts:
            return in_words(
                f"This console does not answer to the name {host!r}. Use the address that was "
                "printed at its start; names of a reverse proxy go into console: names.",
                421,
            )
        changes = scope["type"] == "websocket" or scope["method"] not in _READING
        if changes and "authorization" not in headers:
            origin = urlsplit(headers.get("origin", "")).netloc.lower()
            if origin != host:
                return in_words("This request comes from another page.", 403)
        return None

    async def _sign_in(self, scope: Scope, receive: Receive) -> Response | None:
        """Trade a token for a cookie."""
        if scope["method"] == "POST" and scope["path"] == "/login":
            form = dict(parse_qsl((await _body(receive)).decode("utf-8", "replace")))
            token = form.get("token", "")
        else:
            query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
            if scope["method"] != "GET" or "token" not in query:
                return None
            token = query["token"]
        level = self._tokens.level(token)
        if level is None:
            return HTMLResponse(login_page(wrong=True), status_code=401)
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(
            self._cookie,
            self._tokens.cookie(level),
            httponly=True,
            samesite="strict",
            secure=self._secure,
        )
        return response

    def _level(self, headers: Headers) -> Level | None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme:
            return self._tokens.level(token.strip()) if scheme.lower() == "bearer" else None
        cookies = cookie_parser(headers.get("cookie", ""))
        return self._tokens.level_of_cookie(cookies.get(self._cookie, ""))

    @staticmethod
    async def _refuse(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 4401, "reason": "not signed in"})
            return
        await response(scope, receive, send)


def _lead_on(scope: Scope, headers: Headers) -> Response | None:
    """Have a browser that was led here by another site, such as a mail in it, ask once more.

    What the other site causes goes without the cookie, and so would a redirect after the token.
    """
    led = headers.get("sec-fetch-site") == "cross-site"
    looks = scope["type"] == "http" and headers.get("sec-fetch-dest") == "document"
    return HTMLResponse(again_page()) if led and looks and scope["method"] in _READING else None


async def _body(receive: Receive) -> bytes:
    body = b""
    while len(body) <= _LONGEST_FORM:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body[:_LONGEST_FORM]


def _with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            given: list[Any] = message["headers"]
            names = {name.lower() for name, _ in given}
            added = [
                (name.lower().encode(), value.encode())
                for name, value in headers.items()
                if name.lower().encode() not in names
            ]
            message = {**message, "headers": [*given, *added]}
        await send(message)

    return wrapped
