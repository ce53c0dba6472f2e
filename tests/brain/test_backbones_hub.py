"""Downloads from a model hub that runs in the test, and what is said when there is none."""

import hashlib
import http.server
import os
import threading

import huggingface_hub
import pytest
from fiftyone_selfsame.brain.backbones import (
    default,
    default_backbone_name,
    default_backbone_notice,
    load_backbone,
    loader,
)
from fiftyone_selfsame.brain.backbones.catalog import OFFLINE_DEFAULT
from fiftyone_selfsame.brain.errors import ModelError
from fiftyone_selfsame.fixtures.model_folders import make_model_folder
from huggingface_hub import constants


class HubHandler(http.server.BaseHTTPRequestHandler):
    """The few answers of the Hub that a download needs: files with a commit and a hash, and named refusals."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, with_body):
        self.server.asked.append(self.path)
        hub_id, _, filename = self.path.lstrip("/").partition("/resolve/main/")
        folder = self.server.models.get(hub_id)
        if hub_id in self.server.gated:
            return self.send(403, {"X-Error-Code": "GatedRepo"}, b"")
        if folder is None:
            return self.send(404, {"X-Error-Code": "RepoNotFound"}, b"")
        if not (folder / filename).is_file():
            return self.send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": "a" * 40}, b"")
        content = (folder / filename).read_bytes()
        headers = {"X-Repo-Commit": "a" * 40, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        return self.send(200, headers, content, with_body)

    def send(self, status, headers, content, with_body=True):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def _online(monkeypatch, tmp_path):
    """The network is allowed, the Hub's cache is empty, and nothing is remembered from other tests."""
    for variable in ("SELFSAME_MODELS_DIR", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens on the discard port
    loader._loaded.clear()
    default._hub_answers.cache_clear()
    yield
    default._hub_answers.cache_clear()


@pytest.fixture
def hub(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
    server.models, server.gated, server.asked = {}, set(), []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("safe", [True, False])
def test_a_model_is_downloaded_once_and_then_used_without_the_network(hub, tmp_path, monkeypatch, safe):
    hub.models["facebook/dinov2-small"] = make_model_folder("dinov2", tmp_path / "remote", safe_serialization=safe)

    first = load_backbone("dinov2-small", device="cpu")
    assert first.dim == 32
    loader._loaded.clear()
    hub.asked.clear()
    again = load_backbone("facebook/dinov2-small", device="cpu")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = load_backbone("dinov2-small", device="cpu")

    assert hub.asked == []
    assert first.weights_hash == again.weights_hash == offline.weights_hash
    assert first.weights_hash == load_backbone(str(tmp_path / "remote"), device="cpu").weights_hash


def test_a_download_that_was_cut_short_is_completed_the_next_time(hub, tmp_path):
    folder = make_model_folder("dinov2", tmp_path / "remote")
    hub.models["facebook/dinov2-small"] = folder
    huggingface_hub.hf_hub_download("facebook/dinov2-small", "config.json", endpoint=os.environ["HF_ENDPOINT"])
    assert load_backbone("dinov2-small", device="cpu").dim == 32


def test_a_name_that_the_hub_does_not_have_is_explained(hub):
    with pytest.raises(ModelError, match=r"'facebook/dinov2-tiny'.*no such model.*check the name"):
        load_backbone("facebook/dinov2-tiny", device="cpu")


def test_a_model_behind_a_licence_is_explained(hub):
    hub.gated.add("some/gated")
    with pytest.raises(ModelError, match=r"'some/gated'.*licence must be accepted.*hf auth login"):
        load_backbone("some/gated", device="cpu")


def test_a_model_in_another_format_is_explained(hub, tmp_path):
    hub.models["timm/vit"] = tmp_path
    with pytest.raises(ModelError, match=r"'timm/vit'.*no config\.json"):
        load_backbone("timm/vit", device="cpu")


def test_without_a_network_the_error_says_where_to_put_the_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SELFSAME_MODELS_DIR", str(tmp_path))
    with pytest.raises(ModelError) as caught:
        load_backbone("siglip-base", device="cpu")
    message = str(caught.value)
    assert "siglip-base" in message
    assert "google/siglip-base-patch16-224" in message
    assert str(tmp_path / "siglip-base") in message
    assert f"model='{OFFLINE_DEFAULT}'" in message


def test_offline_mode_asks_nobody(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE=1 forbids the download; unset it, or put"):
        load_backbone("dinov2-base", device="cpu")
    assert default_backbone_name() == OFFLINE_DEFAULT
    assert hub.asked == []


def test_the_default_is_dinov2_small_where_the_hub_answers_and_it_is_asked_once(hub, tmp_path):
    hub.models["facebook/dinov2-small"] = make_model_folder("dinov2", tmp_path / "remote")
    assert default_backbone_name() == "dinov2-small"
    assert "will be downloaded" in default_backbone_notice()
    assert len(hub.asked) == 1


def test_the_default_is_an_embedded_model_without_a_network_and_the_notice_says_why():
    assert default_backbone_name() == OFFLINE_DEFAULT
    notice = default_backbone_notice()
    assert "no way to the Hugging Face Hub" in notice
    assert f"({OFFLINE_DEFAULT}), of demo grade and far from DINOv2's quality" in notice
    assert "$SELFSAME_MODELS_DIR/dinov2-small" in notice
    assert "\n" not in notice


def test_a_hub_that_never_answers_does_not_hold_up_the_default(monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: released.wait(60))
    monkeypatch.setattr("fiftyone_selfsame.brain.backbones.hub._PROBE_SECONDS", 0.05)
    try:
        assert default_backbone_name() == OFFLINE_DEFAULT
        assert not released.is_set()
    finally:
        released.set()


def test_a_local_dinov2_is_the_default_and_needs_no_notice(monkeypatch, tmp_path):
    make_model_folder("dinov2", tmp_path / "facebook" / "dinov2-large")
    monkeypatch.setenv("SELFSAME_MODELS_DIR", str(tmp_path))
    assert default_backbone_name() == "dinov2-large"
    assert default_backbone_notice() is None

    make_model_folder("dinov2", tmp_path / "dinov2-small")
    assert default_backbone_name() == "dinov2-small"
