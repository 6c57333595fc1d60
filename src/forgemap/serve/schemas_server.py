"""schemas_server.py: jobs, reports, models, health and problems, as pydantic models for OpenAPI."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from .schemas import ID, Decision, Id, Result


class Model(BaseModel):
    """A model that this server runs."""

    name: str = Field(description="What the option `model` takes.")
    id: str = Field(description="Name and a part of the weights' SHA-256, as in results.")
    weights_sha256: str = Field(description="SHA-256 of the weights' file, in hex.")
    architecture: str = Field(description="The network's kind.")
    native: bool = Field(
        description="Does it look at native resolution? Otherwise pictures are first resized."
    )
    input_size: int | None = Field(description="Pixels to a side that it sees; null: any.")
    engine: str = Field(description="What computes it: torch, onnx or openvino.")
    precision: str = Field(description="In which precision: fp32, bf16 or int8.")
    generation: str | None = Field(
        description="Embedder and classifier of the second answer; null: it is not asked."
    )
    devices: list[str] = Field(description="Where it runs.")
    default: bool = Field(description="Is it taken where no model is named?")
    decision: Decision = Field(description="Its thresholds and their calibration.")


class Limits(BaseModel):
    """What one request may ask for."""

    max_body: int = Field(description="Bytes of one picture.")
    max_job_body: int = Field(description="Bytes of all the pictures of a job together.")
    max_pixels: int = Field(description="Pixels of one picture.")
    pictures_per_request: int = Field(description="Pictures of a job, or of a report.")
    requests_per_minute: int = Field(description="From one client; 0: not limited.")
    deadline: float = Field(description="Seconds within which a picture is answered or refused.")
    keep_seconds: float = Field(description="How long results and finished jobs are kept.")
    keeps_uploads: bool = Field(description="Was the server told to keep what is uploaded?")
    formats: list[str] = Field(description="Picture formats that are read.")


class Models(BaseModel):
    """The models of this server and the limits that it sets."""

    models: list[Model] = Field(description="The default first.")
    limits: Limits = Field(description="What this server takes.")
    version: str = Field(description="Of Forgemap.")


class JobPicture(BaseModel):
    """One picture of a job."""

    name: str = Field(description="As it was sent, without folders.")
    status: Literal["waiting", "working", "done", "failed"] = Field(
        description="`failed`: see the result's `error`."
    )
    result: Result | None = Field(description="null until it is done or failed.")


class Job(BaseModel):
    """Pictures that are judged one after the other while the caller does something else."""

    id: str = Field(pattern=ID, description="Hard to guess: who knows it may read the job.")
    status: Literal["waiting", "working", "done", "cancelled"] = Field(
        description="`done`: every picture is done or failed."
    )
    total: int = Field(description="Number of pictures.")
    done: int = Field(description="Of these, done or failed.")
    created: str = Field(description="When it was accepted (RFC 3339).")
    expires: str | None = Field(description="When it is forgotten; null while it runs.")
    href: str = Field(description="Link to the job.")
    events: str = Field(description="Link to its progress as server-sent events.")
    pictures: list[JobPicture] = Field(description="In the order in which they were sent.")


class ReportRequest(BaseModel):
    """Results to put into one HTML file."""

    model_config = ConfigDict(extra="forbid")

    results: list[Id] = Field(
        min_length=1, max_length=1000, description="Ids of results that are still kept."
    )
    title: str = Field(
        "Forgemap report", min_length=1, max_length=200, description="The report's heading."
    )


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok"] = Field(description="Always `ok`.")
    version: str = Field(description="Of Forgemap.")


class Ready(BaseModel):
    """The server takes pictures."""

    status: Literal["ready"] = Field(description="Always `ready`.")
    waiting: int = Field(description="Pictures in the queue.")
    capacity: int = Field(description="Pictures that fit into the queue.")
    workers: int = Field(description="Workers whose models are loaded.")


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    where: str = Field(description="Which field, as a path: `query/threshold`.")
    detail: str = Field(description="What is wrong with it.")


class Problem(BaseModel):
    """RFC 9457 problem details: the one shape of every error, as application/problem+json."""

    type: str = Field(description="`urn:forgemap:problem:` and the problem's name.")
    title: str = Field(description="The kind of problem, always the same for a type.")
    status: int = Field(description="The HTTP status code.")
    detail: str = Field(description="What happened and what to do, in one sentence.")
    instance: str = Field(description="`urn:uuid:` and the request's id, as in the server's log.")
    errors: list[Fault] | None = Field(
        None, description="Of `invalid-request`: each thing that is wrong."
    )
