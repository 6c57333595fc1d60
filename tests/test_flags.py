"""Flags made from a dataclass: flags go before the YAML file, and the file before the defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from forgemap.cli.flags import read_config, run_config_command
from forgemap.errors import ForgemapError


@dataclass(frozen=True)
class Config:
    """One field of each kind."""

    data: list[str] = field(metadata={"help": "Manifests."})
    steps: int = field(default=10, metadata={"help": "Steps."})
    rate: float = 1e-3
    out: Path = Path("runs")
    device: Literal["cpu", "cuda"] = "cpu"
    flip: bool = True
    seed: int | None = None
    model: dict[str, Any] = field(default_factory=dict)
    widths: tuple[int, ...] = (1, 2)


def run(*arguments: str) -> Config:
    seen: list[Config] = []
    with pytest.raises(SystemExit) as end:
        run_config_command(
            Config, seen.append, name="test", help="A test.", arguments=list(arguments)
        )
    assert end.value.code == 0
    return seen[0]


def test_every_kind_of_field_is_a_flag():
    config = run(
        *("--data", "a", "--data", "b", "--steps", "3", "--rate", "0.5", "--out", "x/y"),
        *("--device", "cuda", "--no-flip", "--seed", "7", "--model", "{width: 32, deep: [1, 2]}"),
        *("--widths", "4", "--widths", "5"),
    )
    assert config == Config(
        data=["a", "b"],
        steps=3,
        rate=0.5,
        out=Path("x/y"),
        device="cuda",
        flip=False,
        seed=7,
        model={"width": 32, "deep": [1, 2]},
        widths=(4, 5),
    )


def test_flags_go_before_the_file_and_the_file_before_the_defaults(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("data: [a]\nsteps: 3\nrate: 1e-4\nout: here\nwidths: [7]\n")
    config = run("--config", str(file), "--steps", "5")
    assert config == Config(data=["a"], steps=5, rate=1e-4, out=Path("here"), widths=(7,))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("data: [a]\nstep: 3", "'step'; valid: data, steps"),
        ("data: [a]\nsteps: 3.5", "steps: 3.5 is not valid; it must be a whole number"),
        ("data: [a]\nsteps: true", "steps: True"),
        ("data: [a]\nrate: quick", "rate: 'quick' is not valid; it must be a number"),
        ("data: [a]\ndevice: tpu", "one of cpu, cuda"),
        ("data: [a]\nflip: 1", "flip: 1 is not valid; it must be true or false"),
        ("data: a", "data: 'a'"),
        ("data: [a]\nmodel: [1]", "model"),
        ("steps: 3", "Missing: --data"),
        ("- a", "field: value"),
        ("data: [", "not valid YAML"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path, text, named):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(ForgemapError) as error:
        read_config(Config, file, {})
    assert named in str(error.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ForgemapError, match=r"gone\.yaml"):
        read_config(Config, tmp_path / "gone.yaml", {})


def test_help_shows_each_sentence_and_default(capsys):
    with pytest.raises(SystemExit):
        run_config_command(Config, print, name="test", help="A test.", arguments=["--help"])
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Steps (default: 10)." in printed
    assert "Manifests (required)." in printed
