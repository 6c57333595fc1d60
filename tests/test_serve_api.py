"""The service answers as it says it does: a real server, a small model, pictures over HTTP."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

pytest.importorskip("fastapi")

import httpx2

import forgemap
from forgemap import report as reports
from forgemap.errors import ForgemapError, ImageError
from forgemap.image import load_image
from forgemap.report_html import ReportWriter
from forgemap.serve.app import create_app
from forgemap.serve.schemas import Result
from forgemap.serve.schemas_server import Job, Models, Problem, Ready
from forgemap.serve.settings import Settings
from tests.conftest import picture
from tests.serving import PATIENCE, running


@pytest.fixture(scope="module")
def server(model_folder, tmp_path_factory):
    with running(tmp_path_factory.mktemp("serve"), "--model", model_folder) as server:
        yield server


@pytest.fixture(scope="module")
def http(server):
    with httpx2.Client(base_url=server.address, timeout=PATIENCE) as http:
        yield http


@pytest.fixture
def client(server):
    with forgemap.Client(server.address, token="") as client:
        yield client


def png(seed: int = 0, height: int = 96, width: int = 128) -> bytes:
    buffer = io.BytesIO()
    PILImage.fromarray(picture(height, width, seed)).save(buffer, "png")
    return buffer.getvalue()


def is_problem(response, name: str, status: int) -> dict:
    """Every error has one shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate(response.json())
    assert problem.type == f"urn:forgemap:problem:{name}" and problem.status == status
    assert problem.instance == f"urn:uuid:{response.headers['x-request-id']}"
    return response.json()


def test_answer_is_the_report_of_the_library_and_its_facts(http, model_folder):
    response = http.post("/v1/analyze", files={"file": ("a.png", png())})
    answer = response.json()
    Result.model_validate(answer)
    assert set(answer) == set(Result.model_fields)
    detector = forgemap.load(model_folder)
    ours = detector.analyze(png()).to_dict() | {"path": "a.png"}
    links = ("mask", "heatmap", "overlay")
    assert {k: answer[k] for k in ours if k not in links} == {
        k: v for k, v in ours.items() if k not in links
    }
    assert answer["decision"]["manipulated_at"] == detector.decision.manipulated_at
    assert "not calibrated" in answer["decision"]["meaning"]
    assert answer["threshold"] == detector.decision.mask_threshold


def test_outputs_are_those_of_the_command(http, model_folder, tmp_path):
    answer = http.post(
        "/v1/analyze?outputs=heatmap,mask,overlay,picture", files={"file": ("a.png", png())}
    ).json()
    image = load_image(png())
    report = forgemap.load(model_folder).analyze(image)
    reports.write_outputs(report, image.pixels, tmp_path, "a")
    for name in ("heatmap", "mask", "overlay"):
        got = http.get(answer[name])
        assert got.headers["content-type"] == "image/png"
        assert got.content == (tmp_path / f"a.{name}.png").read_bytes()
    shown = np.asarray(PILImage.open(io.BytesIO(http.get(answer["picture"]).content)))
    assert np.array_equal(shown, image.pixels)


def test_a_raw_body_and_a_form_give_the_same(http):
    options = {"threshold": "0.3", "outputs": "none"}
    raw = http.post("/v1/analyze", params=options, content=png()).json()
    form = http.post("/v1/analyze", data=options, files={"file": ("upload", png())}).json()
    differ = ("seconds", "result", "expires")
    assert {k: v for k, v in raw.items() if k not in differ} == {
        k: v for k, v in form.items() if k not in differ
    }
    assert raw["threshold"] == 0.3 and raw["mask"] is None


def test_inline_outputs_are_data_uris_and_nothing_is_kept(http, server):
    before = server.metric("forgemap_result_bytes")
    answer = http.post(
        "/v1/analyze?outputs=mask&delivery=inline", files={"file": ("a.png", png())}
    ).json()
    assert answer["mask"].startswith("data:image/png;base64,") and answer["heatmap"] is None
    assert answer["result"] is None and answer["expires"] is None
    assert server.metric("forgemap_result_bytes") == before


def test_results_can_be_forgotten(http):
    answer = http.post("/v1/analyze", content=png()).json()
    assert http.delete(f"/v1/results/{answer['result']}").status_code == 204
    is_problem(http.get(answer["mask"]), "not-found", 404)
    is_problem(http.delete(f"/v1/results/{answer['result']}"), "not-found", 404)


def test_a_picture_that_cannot_be_read_is_named_in_a_sentence(http):
    cut = png()[:200]
    problem = is_problem(
        http.post("/v1/analyze", files={"file": ("../../etc/cut.png", cut)}),
        "unreadable-picture",
        422,
    )
    assert problem["detail"].startswith("cut.png is ")
    is_problem(http.post("/v1/analyze", content=b""), "invalid-request", 422)
    empty = http.post("/v1/analyze", files={"file": ("a.png", b"")})
    assert is_problem(empty, "unreadable-picture", 422)["detail"].startswith("a.png is empty")


@pytest.mark.parametrize(
    "query",
    ["threshold=2", "threshold=x", "outputs=all", "delivery=post", "modell=x", "model=../tiny"],
)
def test_a_wrong_option_is_named(http, query):
    name = query.partition("=")[0]
    problem = is_problem(http.post(f"/v1/analyze?{query}", content=png()), "invalid-request", 422)
    assert problem["errors"][0]["where"] == f"query/{name}"
    if name != "model":
        files = {"file": ("a.png", png())}
        form = http.post("/v1/analyze", data=dict([query.split("=")]), files=files)
        assert is_problem(form, "invalid-request", 422)["errors"][0]["where"] == f"body/{name}"


def test_bodies_of_the_wrong_kind_are_refused_in_words(http):
    def post(kind: str, body: bytes):
        return http.post("/v1/analyze", content=body, headers={"content-type": kind})

    is_problem(post("text/plain", b"x"), "unsupported-media-type", 415)
    is_problem(post("multipart/form-data", b"x"), "malformed-body", 400)
    is_problem(post("multipart/form-data; boundary=b", b"x"), "malformed-body", 400)
    empty = b"--b--\r\n"
    is_problem(post("multipart/form-data; boundary=b", empty), "invalid-request", 422)
    two = [("file", ("a.png", png())), ("file", ("b.png", png()))]
    is_problem(http.post("/v1/analyze", files=two), "invalid-request", 422)
    other = {"picture": ("a.png", png())}
    is_problem(http.post("/v1/analyze", files=other), "invalid-request", 422)


def test_unknown_addresses_and_methods_are_problems(http):
    is_problem(http.get("/v2/analyze"), "not-found", 404)
    is_problem(http.get("/v1/jobs/x"), "invalid-request", 422)
    is_problem(http.get(f"/v1/jobs/{'0' * 32}"), "not-found", 404)
    is_problem(http.get(f"/v1/results/{'0' * 32}/mask.png"), "not-found", 404)
    problem = http.get("/v1/analyze")
    is_problem(problem, "method-not-allowed", 405)
    assert problem.headers["allow"] == "POST"
    assert http.put(f"/v1/jobs/{'0' * 32}").headers["allow"] == "DELETE, GET"


def test_a_job_tells_its_progress_and_a_bad_picture_stops_no_other(http, client):
    id = client.submit([png(1), b"no picture", png(2)], outputs=["mask"])
    events = list(client.events(id))
    names = [name for name, _ in events]
    assert names[0] == "progress" and names[-1] == "end" and names.count("picture") == 3
    assert sorted(data["index"] for name, data in events if name == "picture") == [0, 1, 2]
    job = http.get(f"/v1/jobs/{id}").json()
    Job.model_validate(job)
    assert job == events[-1][1] and job["status"] == "done" and job["expires"]
    assert [p["status"] for p in job["pictures"]] == ["done", "failed", "done"]
    good, bad, _ = client.wait(id)
    assert bad.error == "upload is not a picture: give a file that is " + ", ".join(
        ("JPEG", "PNG", "WebP", "TIFF", "BMP", "GIF", "AVIF", "HEIC")
    )
    assert client.fetch(good.mask)[:4] == b"\x89PNG" and good.overlay is None
    # From the last event that was seen on.
    resumed = http.get(f"/v1/jobs/{id}/events", headers={"last-event-id": "2"}).text
    assert resumed.count("event: picture") == 1
    client.cancel(id)
    is_problem(http.get(f"/v1/jobs/{id}"), "not-found", 404)


def test_a_new_job_is_accepted_with_its_link(http):
    response = http.post("/v1/jobs", files=[("file", (f"{i}.png", png(i))) for i in range(3)])
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == job["href"] and job["total"] == 3
    assert http.delete(job["href"]).status_code == 204


def test_a_report_from_the_server_is_the_one_of_the_command(client, model_folder, tmp_path):
    photos = [tmp_path / "one.png", tmp_path / "two.png"]
    for i, path in enumerate(photos):
        path.write_bytes(png(i, 300, 400))
    judged = [client.analyze(path, outputs=[]) for path in photos]
    client.report(judged, tmp_path / "server.html", title="Same")
    detector = forgemap.load(model_folder)
    images = [load_image(path) for path in photos]
    settings = {"threshold of the mask": 0.5, "pixel limit": "100,000,000", "device": "cpu"}
    with ReportWriter(tmp_path / "command.html", title="Same", settings=settings) as page:
        for path, image in zip(photos, images, strict=True):
            local = detector.analyze(image)
            local.path = path.name
            page.add(local, image.pixels)
    ours, theirs = ((tmp_path / f"{n}.html").read_text() for n in ("server", "command"))
    dated = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d[+\d:]*")
    assert dated.sub("", ours) == dated.sub("", theirs)


def test_reports_of_unknown_results_are_refused(http):
    def post(body: bytes, kind: str = "application/json"):
        return http.post("/v1/report", content=body, headers={"content-type": kind})

    unknown = json.dumps({"results": ["0" * 32]}).encode()
    is_problem(post(unknown), "not-found", 404)
    is_problem(post(b"{"), "malformed-body", 400)
    is_problem(post(b'{"results": []}'), "invalid-request", 422)
    is_problem(post(unknown, "text/plain"), "unsupported-media-type", 415)
    is_problem(post(b" " * 300_000), "too-large", 413)


def test_models_health_readiness_and_metrics(http, server, model_folder):
    known = http.get("/v1/models").json()
    Models.model_validate(known)
    (model,) = known["models"]
    assert model["name"] == model_folder.name and model["default"]
    assert model["id"] == f"{model['name']}@{model['weights_sha256'][:12]}"
    assert (model["engine"], model["precision"]) == ("torch", "fp32")
    assert model["decision"]["whole_area"] == 1 and model["decision"]["bounds"] == []
    assert str(model_folder.parent) not in json.dumps(known)
    assert http.get("/healthz").json() == {"status": "ok", "version": forgemap.__version__}
    Ready.model_validate(http.get("/readyz").json())
    judged = server.metric("forgemap_pictures_total")
    http.post("/v1/analyze", content=png())
    assert server.metric("forgemap_pictures_total") == judged + 1


def test_client_writes_what_the_command_writes(client, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(png())
    report = client.save(client.analyze(path), tmp_path / "out")
    assert isinstance(report, reports.Report) and report.verdict in reports.VERDICTS
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "photo.heatmap.png",
        "photo.mask.png",
        "photo.overlay.png",
    }


def test_client_raises_the_servers_sentence(client, tmp_path):
    with pytest.raises(ImageError, match="upload is not a picture"):
        client.analyze(b"nothing")
    with pytest.raises(ForgemapError, match="no such model here; there are: "):
        client.analyze(png(), model="other")
    with pytest.raises(ImageError, match=r"gone\.png cannot be read"):
        client.analyze(tmp_path / "gone.png")
    with pytest.raises(ForgemapError, match="No such job"):
        client.wait("0" * 32)
    with (
        forgemap.Client("http://127.0.0.1:9") as nobody,
        pytest.raises(ForgemapError, match=r"No Forgemap server answers at http://127\.0\.0\.1:9"),
    ):
        nobody.models()


def test_openapi_describes_every_field_and_every_error():
    document = create_app(Settings(token="x" * 16)).openapi()
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description"), name
        for field, described in schema.get("properties", {}).items():
            assert described.get("description"), f"{name}.{field}"
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["description"] and operation["tags"], path
            for parameter in operation.get("parameters", []):
                assert parameter.get("description") or parameter["schema"]["description"], path
            guarded = path.startswith("/v1") or path == "/metrics"
            assert ("401" in operation["responses"]) == guarded == ("security" in operation)
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"], (path, status)


def test_the_documentation_has_a_curl_line_for_each_call():
    text = (Path(__file__).parent.parent / "docs" / "serving.md").read_text()
    curls = [line for line in text.replace("\\\n", "").splitlines() if line.startswith("curl")]
    for path, operations in create_app(Settings()).openapi()["paths"].items():
        for method in operations:
            pattern = re.escape(path).replace(r"\{id\}", r"\$[A-Z]+").replace(r"\{output\}", r"\w+")
            if method == "delete":
                pattern = "-X DELETE .*" + pattern
            assert any(re.search(pattern + r"($|['\" ?])", line) for line in curls), (method, path)
