"""What a server can be told: as flags, in a file, in the environment; and what it refuses."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from forgemap.cli.flags import run_config_command
from forgemap.errors import ForgemapError
from forgemap.serve.settings import Settings


def told(*arguments: object) -> Settings:
    seen: list[Settings] = []
    with pytest.raises(SystemExit) as end:
        run_config_command(
            Settings, seen.append, name="serve", help="", arguments=[str(a) for a in arguments]
        )
    assert end.value.code == 0
    return seen[0]


def test_every_setting_has_a_sentence_and_a_default():
    for setting in fields(Settings):
        assert setting.metadata.get("help") or setting.name == "token"
    assert told() == Settings()


def test_flags_are_the_settings():
    settings = told(
        *("--host", "0.0.0.0", "--no-auth", "--model", "default", "--model", "other"),
        *("--device", "cpu", "--device", "cuda:1", "--allowed-host", "a.example", "--keep", "kept"),
        *("--deadline", 2.5, "--max-body", 3, "--log-level", "error"),
    )
    assert settings == Settings(
        host="0.0.0.0",
        no_auth=True,
        model=("default", "other"),
        device=("cpu", "cuda:1"),
        allowed_host=("a.example",),
        keep=Path("kept"),
        deadline=2.5,
        max_body=3,
        log_level="error",
    )


def test_a_file_may_hold_them(tmp_path):
    file = tmp_path / "serve.yaml"
    file.write_text("queue: 5\nmodel: [default]\ndeadline: 9\n")
    assert told("--config", file, "--queue", 6) == Settings(queue=6, deadline=9.0)


def test_the_token_comes_from_a_file_or_the_environment_alone(tmp_path, monkeypatch, capsys):
    file = tmp_path / "token"
    file.write_text("correct-horse-battery\n")
    assert told("--token-file", file).token == "correct-horse-battery"
    monkeypatch.setenv("FORGEMAP_TOKEN", "another-token-of-length")
    assert told().token == "another-token-of-length"
    assert told("--token-file", file).token == "correct-horse-battery"
    with pytest.raises(SystemExit) as end:
        run_config_command(
            Settings, print, name="serve", help="", arguments=["--token", "in-the-process-list"]
        )
    assert end.value.code == 2 and "--token" in capsys.readouterr().err
    config = tmp_path / "serve.yaml"
    config.write_text("token: correct-horse-battery\n")
    with pytest.raises(ForgemapError, match="unknown field 'token'"):
        told("--config", config)
    assert "horse" not in repr(Settings(token="correct-horse-battery"))
    for text, words in (("", "is empty"), ("short", "too short")):
        file.write_text(text)
        with pytest.raises(ForgemapError, match=words):
            told("--token-file", file)
    with pytest.raises(ForgemapError, match="cannot be read"):
        told("--token-file", tmp_path / "none")


@pytest.mark.parametrize("name", ["queue", "batch", "deadline", "max_body", "jobs", "keep_seconds"])
def test_limits_are_above_zero(name):
    with pytest.raises(ForgemapError, match=f"--{name.replace('_', '-')} is 0: it must be above 0"):
        Settings(**{name: 0})
