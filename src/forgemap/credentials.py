"""credentials.py: content credentials (C2PA): who signed a picture's history, and does it fit?

found = read_credentials(data, "JPEG")     # None: the file holds none; never an exception
found.text, found.sound, found.kind

Read and checked by c2pa-python (extra `credentials`), the library of the standard's authors. It
asks nothing of the network here, so that who the signer *is* stays open: a name in a certificate
is checked against no list of trusted ones.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .decode import TiffFile

_C2PA_TAG = 52545
_MOST = 100  # characters of a name that are repeated
_MIME = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WebP": "image/webp",
    "TIFF": "image/tiff",
    "HEIC": "image/heic",
    "AVIF": "image/avif",
}
#: Nothing is fetched: not remote manifests, not whether a certificate was revoked.
_SETTINGS = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}


@dataclass(frozen=True)
class Credentials:
    """What a file's content credentials come to."""

    text: str
    """For people, in a sentence without its stop."""
    sound: bool | None
    """Does the signature fit the file? None: not checked."""
    kind: str | None = None
    """The IPTC digital source type that they state, without its address."""


def read_credentials(data: bytes, format: str) -> Credentials | None:
    """The content credentials inside a file (C2PA 2.1); None if there are none.

    Args:
        data: the file's bytes.
        format: as in ``Image.format``.
    """
    try:
        present = any(_manifests(data, format))
    except Exception:  # a damaged file, of which the TIFF reader raises nearly every class
        present = False
    if not present:
        return None
    try:
        import c2pa
    except ImportError:
        return Credentials("present, not verified: pip install 'forgemap[credentials]'", None)
    try:
        settings = c2pa.Settings.from_dict(_SETTINGS)
        with (
            c2pa.Context(settings=settings) as context,
            c2pa.Reader(_MIME[format], io.BytesIO(data), context=context) as reader,
        ):
            state, store = reader.get_validation_state(), json.loads(reader.json())
        return _described(store["manifests"][store["active_manifest"]], str(state))
    except Exception as error:  # whatever a stranger's bytes lead to: the picture itself was read
        return Credentials(f"present, not verified: they cannot be read ({_name(error)})", None)


def _described(manifest: dict[str, Any], state: str) -> Credentials:
    signed = manifest.get("signature_info") or {}
    signer = _name(signed.get("common_name") or signed.get("issuer") or "an unnamed signer")
    if (issuer := _name(signed.get("issuer") or "")) and issuer != signer:
        signer += f" ({issuer})"
    tools = [_name(tool.get("name")) for tool in manifest.get("claim_generator_info") or []]
    made = f" with {', '.join(tools)}" if tools else ""
    sound = state in ("Valid", "Trusted")
    fits = "it fits this file" if sound else "it does NOT fit this file"
    return Credentials(
        f"signed by {signer}{made}: {fits}; who the signer is was not checked",
        sound,
        _kind(manifest),
    )


def _kind(manifest: dict[str, Any]) -> str | None:
    """The digital source type of the first action that states one."""
    for assertion in manifest.get("assertions") or []:
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            for action in (assertion.get("data") or {}).get("actions") or []:
                if stated := action.get("digitalSourceType"):
                    return _name(str(stated).rsplit("/", 1)[-1])
    return None


def _name(value: object) -> str:
    """A printable, short string."""
    text = "".join(c if c.isprintable() else " " for c in str(value or ""))
    return " ".join(text.split())[:_MOST]


def _manifests(data: bytes, format: str) -> Iterator[bool]:
    if format == "JPEG":  # APP11 segments with JUMBF boxes
        at = 2
        while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in (0xD9, 0xDA):
            size = int.from_bytes(data[at + 2 : at + 4], "big")
            yield data[at + 1] == 0xEB and b"c2pa" in data[at + 4 : at + 2 + min(size, 512)]
            at += 2 + max(2, size)
    elif format == "PNG":
        at = 8
        while at + 8 <= len(data):
            yield data[at + 4 : at + 8] == b"caBX"
            at += 12 + int.from_bytes(data[at : at + 4], "big")
    elif format == "WebP":
        at = 12
        while at + 8 <= len(data):
            yield data[at : at + 4] == b"C2PA"
            size = int.from_bytes(data[at + 4 : at + 8], "little")
            at += 8 + size + size % 2
    elif format in ("HEIC", "AVIF"):
        at = 0
        while at + 24 <= len(data):
            yield data[at + 4 : at + 8] == b"uuid" and data[at + 8 : at + 24] == _C2PA_UUID
            size = int.from_bytes(data[at : at + 4], "big")
            if size < 8:
                return
            at += size
    elif format == "TIFF":
        yield _C2PA_TAG in TiffFile(io.BytesIO(data)).tag_v2


_C2PA_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
