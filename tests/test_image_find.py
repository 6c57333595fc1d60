"""image.find_images: files, folders and globs become a sorted list, and the rest is explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgemap.image import find_images

from .test_image import as_nobody


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = ("b.jpg", "a.PNG", "notes.txt", "sub/c.heic", "sub/deep/d.webp", ".hidden.jpg")
    for name in (*names, ".git/e.jpg", "sub/f[1].jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return Path("photos")


def names(*paths: str | Path) -> list[str]:
    found = find_images(paths)
    assert found.problems == []
    return [str(path) for path in found.files]


def test_folders_are_searched_for_pictures_and_hidden_ones_left_out(photos: Path) -> None:
    expected = ["a.PNG", "b.jpg", "sub/c.heic", "sub/deep/d.webp", "sub/f[1].jpg"]
    assert names(photos) == [f"photos/{name}" for name in expected]


def test_named_files_are_kept_whatever_they_are_called(photos: Path) -> None:
    assert names("photos/notes.txt", "photos/.hidden.jpg", "gone.jpg") == [
        "gone.jpg",
        "photos/.hidden.jpg",
        "photos/notes.txt",
    ]


def test_globs_are_expanded_where_the_shell_did_not(photos: Path) -> None:
    assert names("photos/*.jpg") == ["photos/b.jpg"]
    assert names("photos/**/*.webp") == ["photos/sub/deep/d.webp"]
    assert names("photos/s*") == names("photos/sub")
    assert names("photos/sub/f[1].jpg") == ["photos/sub/f[1].jpg"]  # a name, not a pattern


def test_nothing_is_listed_twice(photos: Path) -> None:
    everything = names(photos, "photos/b.jpg", "photos/../photos/a.PNG", photos.absolute(), "ph*")
    assert len(everything) == 5
    assert everything == sorted(everything)


def test_what_matches_nothing_is_a_problem_and_the_rest_goes_on(photos: Path) -> None:
    Path("empty").mkdir()
    found = find_images(["photos/*.gif", "empty", "photos/b.jpg"])
    assert found.files == [photos / "b.jpg"]
    assert found.problems == [
        ("photos/*.gif", "photos/*.gif matches no file: check the pattern"),
        ("empty", "empty is a folder without pictures: name another"),
    ]


def test_links_to_folders_are_not_followed_and_dead_links_are_kept(photos: Path) -> None:
    (photos / "loop").symlink_to(photos.absolute())
    (photos / "dead.jpg").symlink_to("gone.jpg")
    assert "photos/dead.jpg" in names(photos)
    assert not any("loop" in name for name in names(photos))


def test_a_folder_that_may_not_be_opened_is_a_problem(photos: Path) -> None:
    (photos / "sub").chmod(0)
    with as_nobody():
        found = find_images([photos])
    (photos / "sub").chmod(0o755)
    assert [str(path) for path in found.files] == ["photos/a.PNG", "photos/b.jpg"]
    assert found.problems == [
        (
            "photos/sub",
            "photos/sub cannot be opened (Permission denied): check its permissions",
        )
    ]
