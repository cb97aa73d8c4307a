"""Who may ask: the key, the names under which the server may be reached, and what browsers are told.

A page of another site must not reach a server on this machine: its script may have a name of its own that leads here
(DNS rebinding), so the Host header has to be one of ours; it may send a form, so bodies must be JSON; it may send
JSON, but only after asking, which is never granted (no CORS).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from rinsho.errors import UserError

VARIABLE = "RINSHO_API_KEY"
SHORTEST_KEY = 16
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_HOST = re.compile(r"(\[(?P<address>[^\]]+)\]|(?P<name>[^:\[\]]+))(:[0-9]*)?")
CHALLENGE = 'Basic realm="rinsho", charset="UTF-8", Bearer realm="rinsho"'  # Basic: a browser then asks for the key


class Key:
    """The key that every request must have, kept as its hash; `Key(None)` asks for none."""

    def __init__(self, key: str | None) -> None:
        self.asked = key is not None
        self._hash = _hash(key or "")

    def opens(self, authorization: str | None) -> bool:
        """Whether an Authorization header has it, as a bearer token or as the password of any user.

        >>> Key("kokoro-no-kagi-0815").opens("Bearer kokoro-no-kagi-0815"), Key(None).opens(None)
        (True, True)
        """
        if not self.asked:
            return True
        scheme, _, given = (authorization or "").partition(" ")
        given = given.strip()
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode("utf-8").partition(":")[2]
            except ValueError:  # no base64, or no UTF-8 in it
                given = ""
        elif scheme.lower() != "bearer":
            given = ""
        return hmac.compare_digest(_hash(given), self._hash)


class Names:
    """The names in Host headers that are ours: those given, and addresses, which no foreign name server can invent.

    Args:
        given: names the server was bound to or is told to answer to.
        loopback: only this machine reaches it, so of the addresses only its own are ours.
    """

    def __init__(self, given: Iterable[str], loopback: bool) -> None:
        self._names = {name.lower() for name in given} | {"localhost"}
        self._loopback = loopback

    def own(self, host: str | None) -> bool:
        """Whether a Host header is one of ours, whatever its port.

        >>> names = Names((), loopback=True)
        >>> [names.own(host) for host in ("localhost:8080", "127.0.0.1", "[::1]:8080", "evil.example", "10.0.0.1")]
        [True, True, True, False, False]
        """
        parts = _HOST.fullmatch(host or "")
        if parts is None:
            return False
        try:
            local = is_loopback(parts["address"] or parts["name"])
        except ValueError:
            return parts["name"] is not None and parts["name"].lower().rstrip(".") in self._names
        return local or not self._loopback


def same_site(origin: str | None, host: str | None) -> bool:
    """Whether the page that sends a request is ours; requests that no page sends name none."""
    return origin is None or origin.partition("://")[2].lower() == (host or "").lower()


def read_key(file: Path | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """The key of the file, else of RINSHO_API_KEY, else None.

    Raises:
        UserError: the file cannot be read, or what it holds is no key.
    """
    where: object = VARIABLE
    key = environment.get(VARIABLE)
    if file is not None:
        where = file
        try:
            key = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise UserError("cannot be read", where=file, expected="a file whose only line is the key") from None
    if key is None:
        return None
    if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(
            "this is no key", where=where, expected=f"{SHORTEST_KEY} or more ASCII characters without spaces",
            todo="make one: python -c 'import secrets; print(secrets.token_urlsafe(32))' > FILE; chmod 600 FILE",
        )  # fmt: skip
    return key


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach this address.

    Raises:
        ValueError: it is none.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def bound_names(host: str, allow_hosts: Iterable[str]) -> set[str]:
    """The names that a server bound to `host` may be called by."""
    names = {host.lower(), *(name.lower() for name in allow_hosts)}
    return names | {socket.gethostname().lower()}


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
