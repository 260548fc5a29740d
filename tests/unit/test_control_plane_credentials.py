import base64
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pointsman.controlplane import credentials
from pointsman.controlplane.credentials import Client, Credentials

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def files(tmp_path: Path) -> Credentials:
    return credentials.create(tmp_path, NOW)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_administrator_is_of_the_group_that_is_never_refused(files: Credentials) -> None:
    admin = certificate(files.admin_certificate)

    assert admin.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:masters"
    usage = admin.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    admin.verify_directly_issued_by(certificate(files.ca))


def test_the_server_is_certified_for_loopback_alone(files: Credentials) -> None:
    serving = certificate(files.serving_certificate)

    names = serving.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "kubernetes.default.svc"]
    serving.verify_directly_issued_by(certificate(files.ca))


def test_a_clock_that_is_an_hour_behind_accepts_the_certificates(files: Credentials) -> None:
    assert certificate(files.serving_certificate).not_valid_before_utc == datetime(2026, 5, 1, 11, tzinfo=UTC)


def test_no_key_that_could_sign_more_certificates_is_kept(files: Credentials, tmp_path: Path) -> None:
    assert sorted(path.name for path in tmp_path.glob("*.key")) == ["admin.key", "service-accounts.key", "serving.key"]


def test_a_kubeconfig_holds_all_that_is_needed_and_only_its_owner_reads_it(files: Credentials, tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"

    credentials.write_kubeconfig(path, "https://127.0.0.1:6443", files)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in tmp_path.iterdir())
    config = yaml.safe_load(path.read_text())
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    assert base64.b64decode(config["users"][0]["user"]["client-key-data"]) == files.admin_key.read_bytes()
    assert config["current-context"] == config["contexts"][0]["name"]


def test_a_node_gets_certificates_for_its_address_and_its_clients(tmp_path: Path) -> None:
    files = credentials.create(tmp_path, NOW, ["10.9.0.2"], [Client("system:node:a", "system:nodes"), Client("proxy")])

    serving = certificate(files.serving_certificate)
    names = serving.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert str(names.get_values_for_type(x509.IPAddress)[-1]) == "10.9.0.2"
    node = certificate(files.clients["system:node:a"].certificate)
    assert node.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "system:node:a"
    assert node.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:nodes"
    node.verify_directly_issued_by(certificate(files.ca))
    path = tmp_path / "kubeconfig"
    credentials.write_kubeconfig(path, "https://10.9.0.2:6443", files, "proxy")
    data = yaml.safe_load(path.read_text())["users"][0]["user"]["client-certificate-data"]
    assert base64.b64decode(data) == files.clients["proxy"].certificate.read_bytes()
