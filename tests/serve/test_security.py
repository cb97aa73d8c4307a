"""Who may ask: the key, Host and Origin headers, what browsers are told, and that no text is logged."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from rinsho.errors import UserError
from rinsho.serve import ServeOptions
from rinsho.serve.process import run
from rinsho.serve.security import Key, Names, bound_names, is_loopback, read_key, same_site
from serve.toy_server import Inside, question

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]
KEY = "kokoro-no-kagi-0815"
SECRET = "山田太郎の秘密"
ROUTES = [
    ("GET", "/"), ("GET", "/static/app.js"), ("GET", "/health"), ("GET", "/metrics"), ("GET", "/v1/models"),
    ("GET", "/v1/models/toy"), ("GET", "/v1/about"), ("POST", "/v1/chat/completions"), ("POST", "/v1/completions"),
    ("POST", "/v1/extract"), ("POST", "/v1/classify"), ("POST", "/v1/tokens"), ("POST", "/v1/training-rows"),
    ("GET", "/nothing"), ("GET", "/docs"), ("GET", "/openapi.json"), ("OPTIONS", "/v1/chat/completions"),
]  # fmt: skip


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()


def test_the_key_in_both_ways() -> None:
    key = Key(KEY)
    assert key.opens(f"Bearer {KEY}") and key.opens(f"bearer {KEY} ") and key.opens(basic(KEY))
    wrong = [None, "", KEY, "Bearer", "Bearer ", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Digest {KEY}", "Basic %%%",
             basic(""), basic(KEY + "x"), "Basic " + base64.b64encode(KEY.encode()).decode(), "Bearer \ud800",
             "Basic \xe9\xe9", f"Basic {KEY}"]  # fmt: skip
    assert not any(key.opens(given) for given in wrong)
    assert Key(None).opens(None) and Key(None).opens("Bearer anything")


def test_the_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr("rinsho.serve.security.hmac.compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    key = Key(KEY)
    assert key.opens(f"Bearer {KEY}") and not key.opens("Bearer x") and not key.opens(None)
    assert len(compared) == 3 and all(len(a) == len(b) == 32 for a, b in compared)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_asks_for_the_key(keyed: Inside, method: str, path: str) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}):
        answer = keyed.http.request(method, path, headers=headers, json={} if method == "POST" else None)
        assert answer.status_code == 401 and answer.json()["error"]["type"] == "authentication_error"
        assert "Basic" in answer.headers["www-authenticate"]
    for given in (f"Bearer {KEY}", basic(KEY)):
        assert keyed.http.request(method, path, headers={"authorization": given}).status_code != 401


@pytest.fixture(scope="module")
def keyed():
    with Inside(key=KEY) as server:
        yield server


@pytest.fixture(scope="module")
def open_server():
    with Inside(names=["clinic.example"]) as server:
        yield server


def test_names_of_the_server() -> None:
    local = Names([], loopback=True)
    assert all(
        map(
            local.own, ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "127.9.9.9", "[::1]", "localhost.:1", "[::1]:80"]
        )
    )
    assert local.own("[::ffff:127.0.0.1]:80") and not local.own("[::ffff:10.0.0.1]")
    assert not any(map(local.own, ["[::1].evil.com", "[::1]x:80", "127.0.0.1:80.evil.com", "[]", "[localhost]", "::1"]))
    assert not any(
        map(local.own, [None, "", "evil.example", "localhost.evil.example", "192.168.0.2", "[fe80::1]", "0"])
    )
    abroad = Names(bound_names("0.0.0.0", ["LLM.clinic.example"]), loopback=False)
    assert all(map(abroad.own, ["192.168.0.2:8080", "[fe80::1]:80", "llm.clinic.example:443", "localhost"]))
    assert not abroad.own("evil.example")


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8080", "169.254.169.254", ""])
@pytest.mark.parametrize("path", ["/", "/health", "/v1/models"])
def test_names_that_lead_here_from_elsewhere(open_server: Inside, host: str, path: str) -> None:
    answer = open_server.http.get(path, headers={"host": host})
    assert answer.status_code == 421
    assert open_server.http.get(path, headers={"host": "clinic.example:99"}).status_code != 421


def test_pages_of_other_sites(open_server: Inside) -> None:
    good = question(max_tokens=4)
    own = {"origin": open_server.url}
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        assert open_server.http.post("/v1/chat/completions", json=good, headers={"origin": origin}).status_code == 403
    answer = open_server.http.post("/v1/chat/completions", json=good, headers=own)
    assert answer.status_code == 200 and not any(name.startswith("access-control") for name in answer.headers)
    asked = open_server.http.options("/v1/chat/completions", headers={"access-control-request-method": "POST"})
    assert asked.status_code == 405 and not any(name.startswith("access-control") for name in asked.headers)
    assert same_site(None, "x") and same_site("http://X:1", "x:1") and not same_site("http://x:2", "x:1")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "application/jsonp"]
)
def test_bodies_that_a_form_can_send(open_server: Inside, kind: str) -> None:
    answer = open_server.http.post("/v1/chat/completions", content=b'{"messages": []}', headers={"content-type": kind})
    assert answer.status_code == 415


def test_what_browsers_are_told(open_server: Inside) -> None:
    for answer in (
        open_server.http.get("/"), open_server.http.get("/health"), open_server.http.get("/nothing"),
        open_server.http.post("/v1/tokens", json={}), open_server.http.get("/", headers={"host": "evil.example"}),
    ):  # fmt: skip
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


def test_files_beside_the_page_cannot_be_asked_for(open_server: Inside) -> None:
    for path in (
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/static/",
        "/static/__init__.py",
    ):
        assert open_server.http.get(path).status_code == 404
    assert open_server.http.get("/docs").status_code == open_server.http.get("/openapi.json").status_code == 404


def test_nothing_of_a_text_is_logged_or_counted(open_server: Inside) -> None:
    before = len(open_server.lines)
    ask = open_server.http.post
    ask("/v1/chat/completions", json=question(SECRET, max_tokens=4, user=SECRET))
    ask("/v1/chat/completions", json=question(SECRET, model=SECRET))
    ask("/v1/chat/completions", json={SECRET: 1})
    ask("/v1/completions", content=f'{{"prompt": "{SECRET}'.encode(), headers={"content-type": "application/json"})
    ask("/v1/tokens", json={"text": SECRET})
    ask(f"/v1/{SECRET}?q={SECRET}", json={})
    open_server.http.request("SECRETMETHOD", "/health")
    open_server.http.get(f"/static/{SECRET}", headers={"user-agent": "secret-agent", "referer": "http://x/secret"})
    lines = "\n".join(open_server.lines[before:]) + open_server.http.get("/metrics").text
    assert SECRET not in lines and "%E5%B1%B1" not in lines and "secret" not in lines.lower()
    shape = re.compile(r"(GET|HEAD|POST|OTHER) (/[\w/-]*|other) \d{3}( \d+\+\d+ tokens)? \d+\.\d{3} s")
    assert all(shape.fullmatch(line) for line in open_server.lines[before:]), open_server.lines[before:]
    assert "POST /v1/chat/completions 200 " in lines and "+4 tokens" in lines


def test_an_error_of_ours_tells_no_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with Inside() as server:
        monkeypatch.setattr(type(server.opened), "encode", lambda self, text: {}[text])
        answer = server.http.post("/v1/completions", json={"prompt": SECRET})
        assert answer.status_code == 500 and answer.json()["error"]["type"] == "server_error"
        assert SECRET not in answer.text and SECRET not in "".join(server.lines)
        assert any("error KeyError at" in line for line in server.lines)


def test_a_key_is_demanded_where_others_can_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RINSHO_API_KEY", raising=False)
    with pytest.raises(UserError, match="RINSHO_API_KEY or --api-key-file"):
        run(tmp_path, ServeOptions(host="0.0.0.0", port=0))
    monkeypatch.setenv("RINSHO_API_KEY", "short")
    with pytest.raises(UserError, match="this is no key"):
        run(tmp_path, ServeOptions(host="0.0.0.0", port=0))
    assert is_loopback("127.0.0.1") and is_loopback("::1") and not is_loopback("0.0.0.0") and not is_loopback("::")


def test_where_the_key_is_read(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    assert read_key(file, {}) == KEY == read_key(None, {"RINSHO_API_KEY": KEY}) and read_key(None, {}) is None
    assert read_key(file, {"RINSHO_API_KEY": "another-key-of-16-letters"}) == KEY
    for wrong in ("", "short", "with a space in between", "鍵" * 16, "two\nlines-of-sixteen-each"):
        file.write_text(wrong)
        with pytest.raises(UserError, match="this is no key") as caught:
            read_key(file, {})
        assert not wrong or wrong not in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_key(tmp_path / "missing", {})
    with pytest.raises(UserError, match="this is no key"):
        read_key(None, {"RINSHO_API_KEY": ""})
