"""Self-made certificates for tests: one authority, a server's for `localhost` alone, a client's by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization


@dataclass(frozen=True)
class Identity:
    """PEM files: `certificate` (with its chain), `key` (PKCS 8, unencrypted), `both` in one (what Kafka reads)."""

    certificate: Path
    key: Path
    both: Path


class Authority:
    """Owns a new root; its certificate lies in `file`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._ca = directory, trustme.CA()
        self.file = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(self.file)

    def identity(self, *hosts: str, name: str) -> Identity:
        """A certificate for `hosts`, its common name `name`."""
        made = self._ca.issue_cert(*hosts, common_name=name)
        key = serialization.load_pem_private_key(made.private_key_pem.bytes(), password=None).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
        files = [self._directory / f"{name}{end}" for end in (".crt", ".key", ".pem")]
        for file, content in zip(files, (chain, key, key + chain), strict=True):
            file.write_bytes(content)
        return Identity(*files)
