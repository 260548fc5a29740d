import pytest

from pointsman import errors
from pointsman.controlplane import release
from pointsman.controlplane.release import Binary, Release, Target


@pytest.mark.parametrize(
    ("system", "machine", "wanted"),
    [
        pytest.param("Linux", "x86_64", "linux-amd64", id="linux on intel"),
        pytest.param("Linux", "aarch64", "linux-arm64", id="linux on arm"),
        pytest.param("Darwin", "arm64", "darwin-arm64", id="a new mac"),
        pytest.param("Darwin", "x86_64", "darwin-amd64", id="an old mac"),
    ],
)
def test_a_machine_is_named_in_the_words_of_go(system: str, machine: str, wanted: str) -> None:
    assert str(release.target(system, machine)) == wanted


@pytest.mark.parametrize(("system", "machine"), [("Windows", "AMD64"), ("Linux", "riscv64")])
def test_a_machine_that_runs_no_control_plane_is_refused_with_the_way_out(system: str, machine: str) -> None:
    with pytest.raises(errors.Terminal, match=f"this is {system} with {machine}: point KUBECONFIG at a cluster"):
        release.target(system, machine)


def test_the_servers_of_kubernetes_are_published_alone_with_a_checksum_beside_them() -> None:
    found = release.download(Binary.API_SERVER, Release("v1.34.4", "v3.6.4"), Target("linux", "arm64"))

    assert found is not None
    assert found.url == "https://dl.k8s.io/release/v1.34.4/bin/linux/arm64/kube-apiserver"
    assert found.checksum_url == found.url + ".sha256"
    assert found.member is None


def test_the_servers_of_kubernetes_are_not_published_for_macs() -> None:
    assert release.download(Binary.CONTROLLER_MANAGER, Release(), Target("darwin", "arm64")) is None


@pytest.mark.parametrize(("system", "suffix"), [("linux", "tar.gz"), ("darwin", "zip")])
def test_etcd_is_published_in_an_archive_with_one_list_of_checksums(system: str, suffix: str) -> None:
    found = release.download(Binary.ETCD, Release("v1.34.4", "v3.6.4"), Target(system, "arm64"))

    assert found is not None
    address = "https://github.com/etcd-io/etcd/releases/download/v3.6.4"
    assert found.url == f"{address}/etcd-v3.6.4-{system}-arm64.{suffix}"
    assert found.checksum_url == f"{address}/SHA256SUMS"
    assert found.member == f"etcd-v3.6.4-{system}-arm64/etcd"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("Kubernetes v1.34.4\n", "v1.34.4"),
        ("Kubernetes v1.33.0-rc.1+abc\n", "v1.33.0"),
        ("usage: kube-apiserver\n", None),
        ("", None),
    ],
)
def test_a_version_is_read_from_what_the_server_says(said: str, wanted: str | None) -> None:
    assert release.parse_version(said) == wanted


def test_staging_modules_carry_the_version_of_kubernetes_with_a_zero() -> None:
    assert Release("v1.34.4").staging == "v0.34.4"
    assert Release("v1.34.4").minor == "34"
