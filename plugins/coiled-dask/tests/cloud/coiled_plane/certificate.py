"""The one certificate of a cluster: authority, server and client at once, as Coiled makes them."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Certificate"]


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate and its key, as PEM text and as files."""

    cert: str
    key: str
    cert_file: Path
    key_file: Path

    @classmethod
    def make(cls, folder: Path) -> Certificate:
        """A new one, valid for a day. Its files lie in the folder."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cluster.loopback")])
        now = datetime.datetime.now(datetime.UTC)
        public = key.public_key()
        subject = x509.SubjectKeyIdentifier.from_public_key(public)
        # Python 3.13 verifies strictly: an authority must say what it is, and whose key signed it.
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(), critical=True)
            .add_extension(subject, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
            .sign(key, hashes.SHA256())
        )
        cert_text = made.public_bytes(serialization.Encoding.PEM).decode()
        key_text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        folder.mkdir(parents=True, exist_ok=True)
        cert_file, key_file = folder / "cluster.crt", folder / "cluster.pem"
        cert_file.write_text(cert_text, encoding="utf-8")
        key_file.touch(mode=0o600)
        key_file.write_text(key_text, encoding="utf-8")
        return cls(cert_text, key_text, cert_file, key_file)

    def dask_config(self) -> dict[str, object]:
        """The settings with which a scheduler and workers speak TLS alone, and only to who has this certificate."""
        pair = {"cert": str(self.cert_file), "key": str(self.key_file)}
        tls = {"ca-file": str(self.cert_file), "scheduler": pair, "worker": pair, "client": pair}
        return {"distributed": {"comm": {"require-encryption": True, "tls": tls}}}


def _usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        key_encipherment=False,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
