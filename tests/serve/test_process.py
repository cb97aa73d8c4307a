"""A GGUF file served by a real process that has no torch, and texts and key on an encrypted line."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from generate_many.toy_gguf import export, our_folder
from rinsho.chat import Message
from rinsho.generate.batcher import Batcher
from rinsho.generate.jobs import text_job
from rinsho.generate.opening import open_model
from serve.toy_server import Process, question

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]
KEY = "kokoro-no-kagi-0815"
CHAT = "/v1/chat/completions"


def test_a_gguf_file_is_served_without_torch(tmp_path: Path) -> None:
    """The answers are those of the file in this process; our tokenizer stands in front."""
    pytest.importorskip("llama_cpp")
    folder = our_folder(tmp_path / "ours")
    (tmp_path / "gguf").mkdir()
    export(folder, tmp_path / "gguf")
    opened = open_model(tmp_path / "gguf")
    batcher = Batcher(opened.decoder)
    with (
        Process(tmp_path / "gguf", name="kokoro") as server,
        httpx.Client(base_url=server.url, trust_env=False) as http,
    ):
        about = http.get("/v1/about").json()
        assert (about["name"], about["runtime"], about["chat"]) == ("kokoro", "llama.cpp", True)
        for word in ("発熱と咳嗽。", "肺癌の疑い。", "①ＣＴ\n所見"):
            prompt = opened.prompt([Message("user", word)])
            (ids,) = batcher.run([text_job(prompt, 12, {opened.end_id})])
            said = http.post(CHAT, json=question(word, max_tokens=12)).json()
            assert said["usage"] == {
                "prompt_tokens": len(prompt),
                "completion_tokens": len(ids),
                "total_tokens": len(prompt) + len(ids),
            }
            assert said["choices"][0]["message"]["content"] == opened.tokenizer.decode(ids, skip_special_tokens=True)
        assert any("llama.cpp" in line for line in server.lines) and any("memory: " in line for line in server.lines)
        if sys.platform == "linux":
            assert "libtorch" not in Path(f"/proc/{server.process.pid}/maps").read_text()
        server.signal()
        assert server.wait() == 0
    opened.decoder.close()


def test_an_encrypted_line(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    cert, key, secret = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "secret"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    secret.write_text(KEY)
    with Process({}, tls_cert=cert, tls_key=key, api_key_file=secret) as server:
        assert server.url and server.url.startswith("https://")
        trusted = ssl.create_default_context(cafile=str(cert))
        with httpx.Client(base_url=server.url, verify=trusted, trust_env=False) as http:
            assert http.get("/health").status_code == 401
            answer = http.post(CHAT, json=question(), headers={"authorization": f"Bearer {KEY}"})
            assert answer.json()["choices"][0]["message"]["content"] == "肺癌発熱咳嗽急性"
        server.signal()
        assert server.wait() == 0
        assert not any(KEY in line for line in server.lines)
