"""Content credentials: read, checked against the file, and never fetched from anywhere."""

from __future__ import annotations

import datetime
import io

import numpy as np
import pytest
from PIL import Image as PILImage

from forgemap.credentials import read_credentials
from forgemap.image import load_image
from forgemap.metadata import read_metadata
from tests.conftest import picture

c2pa = pytest.importorskip("c2pa", reason="needs the extra `credentials`")
AI = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def certificate(name, issuer=None, issuer_key=None):
    """A certificate and its key; without an issuer it is the one of an authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key, authority = ec.generate_private_key(ec.SECP256R1()), issuer is None
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [(NameOID.COMMON_NAME, name), (NameOID.ORGANIZATION_NAME, "Daily News")]
    subject = x509.Name([x509.NameAttribute(kind, value) for kind, value in names])
    uses = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
    )
    uses |= dict.fromkeys(("encipher_only", "decipher_only"), False)
    uses |= {"digital_signature": not authority, "key_cert_sign": authority, "crl_sign": authority}
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if authority else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**uses), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if not authority:
        mail = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        known = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())
        builder = builder.add_extension(mail, critical=False).add_extension(known, critical=False)
    return builder.sign(issuer_key or key, hashes.SHA256()), key


@pytest.fixture(scope="module")
def signed() -> bytes:
    """A JPEG whose credentials say that a model made it, signed as a camera would."""
    from cryptography.hazmat.primitives import serialization as form

    root, root_key = certificate("Test Authority")
    leaf, key = certificate("Newsroom Camera Desk", root, root_key)
    chain = b"".join(c.public_bytes(form.Encoding.PEM) for c in (leaf, root))
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", chain, private, None))
    actions = {"actions": [{"action": "c2pa.created", "digitalSourceType": AI}]}
    manifest = {
        "claim_generator_info": [{"name": "Test Painter", "version": "1"}],
        "assertions": [{"label": "c2pa.actions", "data": actions}],
    }
    plain, out = io.BytesIO(), io.BytesIO()
    PILImage.fromarray(picture(120, 160)).save(plain, "JPEG", quality=90)
    plain.seek(0)
    c2pa.Builder(manifest).sign(signer, "image/jpeg", plain, out)
    return out.getvalue()


def test_sound_credentials_name_signer_and_tool_and_do_not_vouch_for_them(signed) -> None:
    found = read_credentials(signed, "JPEG")
    assert found.sound is True and found.kind == "trainedAlgorithmicMedia"
    assert "Newsroom Camera Desk (Daily News)" in found.text and "Test Painter" in found.text
    assert "it fits this file" in found.text and "was not checked" in found.text


def test_a_changed_picture_no_longer_fits_its_credentials(signed) -> None:
    changed = bytearray(signed)
    changed[-200] ^= 0x55  # among the compressed pixels
    found = read_credentials(bytes(changed), "JPEG")
    assert found.sound is False and "does NOT fit" in found.text


def test_they_are_told_beside_the_verdict(signed) -> None:
    told = load_image(signed, metadata=True).metadata
    assert "Newsroom Camera Desk" in told.c2pa
    assert "generative model" in told.source_type
    assert any("generative model" in finding for finding in told.findings)
    changed = bytearray(signed)
    changed[-200] ^= 0x55
    pixels = np.zeros((120, 160, 3), np.uint8)
    findings = read_metadata(bytes(changed), "JPEG", pixels, 1).findings
    assert any("do not fit the picture" in finding for finding in findings)


def test_cut_or_mangled_credentials_are_never_an_exception(signed) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(signed)
        for at in rng.integers(2, 20_000, 5):
            broken[at] = int(rng.integers(256))
        read_credentials(bytes(broken), "JPEG")
    for cut in (10, 500, 5000):
        read_credentials(signed[:cut], "JPEG")


def test_nothing_is_asked_of_the_network(signed) -> None:
    """A picture may name an address where its credentials are to be had: it is not visited."""
    import http.server
    import threading

    visited = []

    class Visited(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            visited.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Visited)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/manifest.c2pa"
        xmp = (
            '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
            'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
            f'xmlns:dcterms="http://purl.org/dc/terms/" dcterms:provenance="{address}"/>'
            "</rdf:RDF></x:xmpmeta>"
        )
        file = io.BytesIO()
        PILImage.fromarray(picture(64, 64)).save(file, "JPEG", xmp=xmp.encode())
        assert address.encode() in file.getvalue()
        load_image(file.getvalue(), metadata=True)
        # With credentials inside as well, the library itself comes to look at the file.
        segment = file.getvalue()[2:][: file.getvalue().index(b"</x:xmpmeta>") + 10]
        assert read_credentials(signed[:2] + segment + signed[2:], "JPEG") is not None
    finally:
        server.shutdown()
        server.server_close()
    assert visited == []
