"""The keys, certificates and kubeconfig of one control plane, made anew each time and valid for it alone."""

from __future__ import annotations

import base64
import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID_FOR = timedelta(days=30)
_CLOCK_SKEW = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Client:
    """Another client than the administrator: its user name and its group."""

    name: str
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Where a certificate and its private key lie."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the files of a control plane lie."""

    ca: Path
    serving_certificate: Path
    serving_key: Path
    service_account_key: Path
    service_account_public_key: Path
    admin_certificate: Path
    admin_key: Path
    clients: Mapping[str, Pair]
    """By user name."""


def create(
    folder: Path, now: datetime | None = None, hosts: Sequence[str] = (), clients: Sequence[Client] = ()
) -> Credentials:
    """Write a CA, a serving certificate for loopback, a key pair for service accounts and an administrator.

    `hosts` are IP addresses for which the server is certified as well, `clients` get a certificate each.
    The administrator's certificate says O=system:masters, which the API server never refuses. Private keys get mode
    0600; the CA's own is not written at all, so nothing else can ever be signed by it.
    """
    begins = (now or datetime.now(UTC)) - _CLOCK_SKEW
    ca_key, ca_name = _key(), _name("pointsman-control-plane-ca")
    ca = (
        _builder(ca_name, ca_name, ca_key, begins)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )

    def issue(
        name: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        usage: x509.ObjectIdentifier,
        hosts: Sequence[x509.GeneralName] = (),
    ) -> x509.Certificate:
        builder = (
            _builder(name, ca_name, key, begins)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        return builder.sign(ca_key, hashes.SHA256())

    serving_key, admin_key, accounts_key = _key(), _key(), _key()
    loopback = (
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
        x509.DNSName("localhost"),
        x509.DNSName("kubernetes.default.svc"),
    )
    others = [x509.IPAddress(ipaddress.ip_address(host)) for host in hosts]
    serving = issue(_name("kube-apiserver"), serving_key, ExtendedKeyUsageOID.SERVER_AUTH, (*loopback, *others))
    admin = issue(_name("pointsman-admin", "system:masters"), admin_key, ExtendedKeyUsageOID.CLIENT_AUTH)

    files = Credentials(
        ca=folder / "ca.crt",
        serving_certificate=folder / "serving.crt",
        serving_key=folder / "serving.key",
        service_account_key=folder / "service-accounts.key",
        service_account_public_key=folder / "service-accounts.pub",
        admin_certificate=folder / "admin.crt",
        admin_key=folder / "admin.key",
        clients={client.name: _pair(folder, client.name) for client in clients},
    )
    _write(files.ca, _pem(ca))
    _write(files.serving_certificate, _pem(serving))
    _write(files.serving_key, _private_pem(serving_key))
    _write(files.service_account_key, _private_pem(accounts_key))
    _write(
        files.service_account_public_key,
        accounts_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )
    _write(files.admin_certificate, _pem(admin))
    _write(files.admin_key, _private_pem(admin_key))
    for client in clients:
        key, pair = _key(), files.clients[client.name]
        _write(pair.certificate, _pem(issue(_name(client.name, client.group), key, ExtendedKeyUsageOID.CLIENT_AUTH)))
        _write(pair.key, _private_pem(key))
    return files


def write_kubeconfig(path: Path, server: str, files: Credentials, client: str | None = None) -> None:
    """Write a kubeconfig of the administrator, or of a client, with all that is needed inside, for its owner alone."""
    pair = Pair(files.admin_certificate, files.admin_key) if client is None else files.clients[client]
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "pointsman", "cluster": {"server": server, "certificate-authority-data": _data(files.ca)}}
        ],
        "users": [
            {
                "name": "pointsman-admin",
                "user": {
                    "client-certificate-data": _data(pair.certificate),
                    "client-key-data": _data(pair.key),
                },
            }
        ],
        "contexts": [{"name": "pointsman", "context": {"cluster": "pointsman", "user": "pointsman-admin"}}],
        "current-context": "pointsman",
    }
    _write(path, yaml.safe_dump(config, sort_keys=False).encode())


def _pair(folder: Path, client: str) -> Pair:
    name = client.replace(":", "-")
    return Pair(folder / f"{name}.crt", folder / f"{name}.key")


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _name(common: str, organization: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if organization is not None:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, begins: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + _VALID_FOR)
    )


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _write(path: Path, content: bytes) -> None:
    # Created with the mode it keeps, so that there is no moment at which others could read it.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
