"""Models by their id of the Hugging Face hub, from a server that answers as it does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from PIL import Image as PILImage

from forgemap import classifiers
from forgemap.models.huggingface import load_embedder
from tests.conftest import picture

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves the folders of a root as repositories, and remembers what was asked of it."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.asked = root, list[str]()


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.path.partition("?")[0].strip("/")
        self.server.asked.append(path)
        if path.startswith("api/models/"):
            name = "/".join(path.split("/")[2:4])
            files = sorted(p.name for p in (self.server.root / name).glob("*"))
            if not files:
                return self.send_error(404)
            if "/tree/" in path:
                tree = [{"type": "file", "path": f, "size": 1, "oid": COMMIT} for f in files]
                return self.send(json.dumps(tree).encode(), "application/json", body)
            info = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": f} for f in files]}
            return self.send(json.dumps(info).encode(), "application/json", body)
        owner, repository, _, _, *rest = path.split("/")
        file = self.server.root / owner / repository / "/".join(rest)
        if not file.is_file():
            return self.send_error(404)
        self.send(file.read_bytes(), "application/octet-stream", body)

    def send(self, data: bytes, kind: str, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """Holds an encoder that transformers itself wrote, its preprocessing, and a classifier."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "hub" / "lab" / "encoder"
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3}
    config = transformers.ViTConfig(**sizes, intermediate_size=48, patch_size=8, image_size=32)
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    kept = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.5, 0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(kept))
    (folder / "huge.bin").write_bytes(bytes(1000))
    network, _ = load_embedder(folder)
    source = classifiers.Source("lab/encoder", network.fingerprint(), network.width)
    vectors = torch.randn(20, 24).numpy()
    fitted = classifiers.fit("linear", vectors, [i % 2 for i in range(20)], source)  # type: ignore[arg-type]
    classifiers.save(fitted, folder / "linear.safetensors")
    server = Hub(tmp_path / "hub")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def analyze(hub: Hub, tmp_path: Path, model: Path, detector: str, **more: str):
    """`forgemap analyze --detector`, in a process that knows only this hub."""
    PILImage.fromarray(picture(64, 64)).save(tmp_path / "a.png")
    command = [sys.executable, "-m", "forgemap", "analyze", str(tmp_path / "a.png"), "--json"]
    command += ["--no-files", "--model", str(model), "--detector", detector]
    address = f"http://127.0.0.1:{hub.server_port}"
    env = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "cache"), **more}
    env |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def test_an_encoder_of_the_hub_is_fetched_once_with_its_preprocessing_and_classifier(
    hub: Hub, tmp_path: Path, model_folder: Path
) -> None:
    done = analyze(hub, tmp_path, model_folder, "lab/encoder")
    assert done.returncode in (0, 1), done.stderr
    (report,) = json.loads(done.stdout)
    assert report["generated"]["model"].startswith("lab/encoder@")
    fetched = {path.rpartition("/")[2] for path in hub.asked}
    assert {"preprocessor_config.json", "linear.safetensors", "model.safetensors"} <= fetched
    assert "huge.bin" not in fetched
    hub.asked.clear()
    again = analyze(hub, tmp_path, model_folder, "lab/encoder", FORGEMAP_OFFLINE="1")
    assert json.loads(again.stdout) == json.loads(done.stdout) and not hub.asked


def test_what_the_hub_does_not_have_is_said_in_one_sentence(
    hub: Hub, tmp_path: Path, model_folder: Path
) -> None:
    done = analyze(hub, tmp_path, model_folder, "lab/nothing")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "lab/nothing" in done.stderr and "Hugging Face hub" in done.stderr
