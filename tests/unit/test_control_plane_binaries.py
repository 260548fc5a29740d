"""Where binaries come from, against a local server that publishes like the official ones, and a Go that is a script."""

import contextlib
import hashlib
import io
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pointsman import errors
from pointsman.controlplane import downloads, progress, release
from pointsman.controlplane.binaries import Finder, Mirrors
from pointsman.controlplane.release import Binary, Download, NodeBinary, Release

RELEASE = Release("v1.34.4", "v3.6.4")
NOWHERE = "http://127.0.0.1:9"


class Publisher:
    """Serves files by path and remembers what was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.asked.append(self.path)
                content = publisher.files.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def publish(self, binary: Binary, content: bytes, checksum: str | None = None) -> None:
        on = release.target()
        if binary is Binary.ETCD:
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w:gz") as archive:
                member = tarfile.TarInfo(f"etcd-v3.6.4-{on}/etcd")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            name, content = f"etcd-v3.6.4-{on}.tar.gz", packed.getvalue()
            self.files[f"/v3.6.4/{name}"] = content
            self.files["/v3.6.4/SHA256SUMS"] = (
                f"{'0' * 64}  etcd-v3.6.4-plan9-mips.tar.gz\n{checksum or sha256(content)}  {name}\n"
            ).encode()
        else:
            path = f"/v1.34.4/bin/{on.os}/{on.arch}/{binary}"
            self.files[path] = content
            self.files[path + ".sha256"] = (checksum or sha256(content)).encode()

    def asked_for(self, name: str) -> int:
        return sum(path.endswith(name) for path in self.asked)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def finder(tmp_path: Path, url: str, stream: io.StringIO, **environment: str) -> Finder:
    return Finder(
        wanted=RELEASE,
        environment={"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin", **environment},
        mirrors=Mirrors(kubernetes=url, etcd=url),
        stream=stream,
    )


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="servers are published for Linux alone")


def test_the_folder_that_the_user_names_wins(tmp_path: Path) -> None:
    for binary in Binary:
        script(tmp_path / "assets" / binary, "exit 0")

    found = finder(tmp_path, NOWHERE, io.StringIO(), KUBEBUILDER_ASSETS=str(tmp_path / "assets")).find()

    assert found.etcd == tmp_path / "assets" / "etcd"
    assert found.api_server == tmp_path / "assets" / "kube-apiserver"
    assert found.controller_manager == tmp_path / "assets" / "kube-controller-manager"
    assert not (tmp_path / "cache").exists()


def test_a_controller_manager_beside_the_users_api_server_is_of_the_same_version(tmp_path: Path) -> None:
    script(tmp_path / "assets/etcd", "exit 0")
    script(tmp_path / "assets/kube-apiserver", "echo Kubernetes v1.32.1")
    cached = f"cache/pointsman/control-plane/v1.32.1-{release.target()}/kube-controller-manager"
    script(tmp_path / cached, "exit 0")

    found = finder(tmp_path, NOWHERE, io.StringIO(), KUBEBUILDER_ASSETS=str(tmp_path / "assets")).find()

    assert found.controller_manager == tmp_path / cached


def test_without_any_controller_manager_the_user_is_told_what_will_not_work(tmp_path: Path) -> None:
    script(tmp_path / "assets/etcd", "exit 0")
    script(tmp_path / "assets/kube-apiserver", "echo Kubernetes v1.32.1")
    said = io.StringIO()

    found = finder(tmp_path, NOWHERE, said, KUBEBUILDER_ASSETS=str(tmp_path / "assets"), PATH="/nonexistent").find()

    assert found.controller_manager is None
    assert f"warning: {tmp_path / 'assets'} has no kube-controller-manager" in said.getvalue()
    assert said.getvalue().endswith("namespaces will not finish deleting and nothing is garbage-collected\n")


def test_a_node_is_of_one_release_whatever_the_user_names(tmp_path: Path) -> None:
    script(tmp_path / "assets/etcd", "exit 0")
    script(tmp_path / "assets/kube-apiserver", "exit 0")
    cached = tmp_path / f"cache/pointsman/control-plane/v1.34.4-{release.target()}"
    for binary in (*Binary, *NodeBinary):
        script(cached / binary, "exit 0")

    found = finder(tmp_path, NOWHERE, io.StringIO(), KUBEBUILDER_ASSETS=str(tmp_path / "assets")).find_node()

    assert found.control_plane.api_server == cached / "kube-apiserver"
    assert (found.scheduler, found.kubelet, found.proxy) == tuple(cached / binary for binary in NodeBinary)


def test_a_folder_without_an_api_server_is_passed_over(tmp_path: Path) -> None:
    script(tmp_path / "assets/etcd", "exit 0")
    cached = tmp_path / f"cache/pointsman/control-plane/v1.34.4-{release.target()}"
    for binary in Binary:
        script(cached / binary, "exit 0")

    found = finder(tmp_path, NOWHERE, io.StringIO(), KUBEBUILDER_ASSETS=str(tmp_path / "assets")).find()

    assert found.etcd == cached / "etcd"


@needs_linux
def test_what_is_published_is_downloaded_once_and_kept(tmp_path: Path, publisher: Publisher) -> None:
    for binary in Binary:
        publisher.publish(binary, f"#!/bin/sh\necho {binary}\n".encode())
    said = io.StringIO()
    lookup = finder(tmp_path, publisher.url, said)

    assert lookup.missing() == list(Binary)
    found = lookup.find()
    again = lookup.find()

    assert found == again
    assert lookup.missing() == []
    assert subprocess.check_output([found.etcd], text=True) == "etcd\n"
    assert subprocess.check_output([found.api_server], text=True) == "kube-apiserver\n"
    assert publisher.asked_for("/kube-apiserver") == 1
    assert "Downloading kube-apiserver · 0:00 · done" in said.getvalue()
    assert sorted(path.name for path in found.etcd.parent.iterdir()) == [".lock", *sorted(Binary)]


@needs_linux
@pytest.mark.parametrize("binary", [Binary.ETCD, Binary.API_SERVER])
def test_a_download_that_was_changed_on_its_way_is_refused_and_not_kept(
    tmp_path: Path, publisher: Publisher, binary: Binary
) -> None:
    for each in Binary:
        publisher.publish(each, b"good", checksum="f" * 64 if each is binary else None)
    lookup = finder(tmp_path, publisher.url, io.StringIO())

    with pytest.raises(errors.Terminal, match="published is ffffffffffff…: it was changed on its way here"):
        lookup.find()

    assert binary in lookup.missing()


def test_a_checksum_list_without_the_file_is_not_trusted(tmp_path: Path, publisher: Publisher) -> None:
    publisher.files = {"/etcd.zip": b"", "/SHA256SUMS": b"abc  other.zip\n"}
    wanted = Download(f"{publisher.url}/etcd.zip", f"{publisher.url}/SHA256SUMS", "etcd")

    with pytest.raises(errors.Retryable, match=r"no checksum is published for etcd\.zip"):
        downloads.fetch(wanted, tmp_path, progress.Progress(io.StringIO(), ""))


def test_a_zip_is_opened_as_well(tmp_path: Path, publisher: Publisher) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("etcd-mac/etcd", b"program")
    publisher.files = {
        "/etcd.zip": packed.getvalue(),
        "/SHA256SUMS": f"{sha256(packed.getvalue())}  etcd.zip\n".encode(),
    }
    wanted = Download(f"{publisher.url}/etcd.zip", f"{publisher.url}/SHA256SUMS", "etcd-mac/etcd")

    path = downloads.fetch(wanted, tmp_path, progress.Progress(io.StringIO(), ""))

    assert path.read_bytes() == b"program"
    assert [p.name for p in tmp_path.iterdir()] == ["etcd"]


@pytest.mark.parametrize(
    ("url", "tried"),
    [
        pytest.param(NOWHERE, "could not be fetched: ConnectError", id="nobody listens", marks=needs_linux),
        pytest.param("http://name.invalid", "cannot be reached", id="no such name", marks=needs_linux),
    ],
)
def test_without_a_network_and_without_go_the_message_says_what_was_tried(tmp_path: Path, url: str, tried: str) -> None:
    with pytest.raises(errors.Terminal) as raised:
        finder(tmp_path, url, io.StringIO(), PATH="/nonexistent").find()

    assert tried in raised.value.message
    assert raised.value.message.endswith(
        "and Go is not there to build it: install Go, or let KUBEBUILDER_ASSETS name a folder that has it"
    )


# Go, as far as it is asked: it tells where the module's own go.mod is, and "compiles" a script that prints its flags.
GO = """
case "$1 $2" in
  "mod download") echo "{\\"GoMod\\": \\"$FAKE/kubernetes.mod\\"}" ;;
  "mod init") printf 'module controlplane\\n\\ngo 1.24.0\\n' > go.mod ;;
  "mod tidy") cp go.mod "$FAKE/written.mod" ;;
  "build -v")
    echo "k8s.io/api/core/v1" >&2
    [ -z "$BROKEN" ] || { echo "main.go:1: syntax error" >&2; exit 2; }
    echo "$@" >> "$FAKE/built"
    while [ "$1" != "-o" ]; do shift; done
    mkdir -p bin; printf '#!/bin/sh\\necho built\\n' > "$2"; chmod +x "$2" ;;
esac
"""


@pytest.fixture
def fake_go(tmp_path: Path) -> dict[str, str]:
    script(tmp_path / "go/go", GO)
    (tmp_path / "go/kubernetes.mod").write_text(
        "module k8s.io/kubernetes\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n"
        "\tk8s.io/client-go => ./staging/src/k8s.io/client-go\n)\n"
    )
    return {"PATH": f"{tmp_path / 'go'}:/usr/bin:/bin", "FAKE": str(tmp_path / "go")}


def test_what_cannot_be_downloaded_is_built_from_its_module(tmp_path: Path, fake_go: dict[str, str]) -> None:
    said = io.StringIO()

    found = finder(tmp_path, NOWHERE, said, **fake_go).find()

    assert subprocess.check_output([found.api_server], text=True) == "built\n"
    written = (tmp_path / "go/written.mod").read_text()
    assert "require k8s.io/kubernetes v1.34.4" in written
    assert "\tk8s.io/client-go => k8s.io/client-go v0.34.4\n" in written
    built = (tmp_path / "go/built").read_text()
    assert "-X k8s.io/component-base/version.gitVersion=v1.34.4" in built
    assert "k8s.io/kubernetes/cmd/kube-controller-manager" in built
    assert "Building kube-apiserver v1.34.4, once for this machine · 0:00" in said.getvalue()
    assert not list(found.etcd.parent.glob(".making-*"))


def test_a_build_that_fails_says_what_the_compiler_said_and_keeps_nothing(
    tmp_path: Path, fake_go: dict[str, str]
) -> None:
    lookup = finder(tmp_path, NOWHERE, io.StringIO(), **fake_go, BROKEN="1")

    with pytest.raises(errors.Terminal, match=r"`go build -v` ended with 2:\nk8s.*\nmain\.go:1: syntax error"):
        lookup.find()

    assert lookup.missing() == list(Binary)


def test_what_a_killed_build_left_is_cleared_away(tmp_path: Path, fake_go: dict[str, str]) -> None:
    cached = tmp_path / f"cache/pointsman/control-plane/v1.34.4-{release.target()}"
    (cached / ".making-dead/bin").mkdir(parents=True)
    (cached / ".making-dead/bin/etcd").write_text("half")

    finder(tmp_path, NOWHERE, io.StringIO(), **fake_go).find()

    assert not (cached / ".making-dead").exists()


FIND = """
import os, sys
from pointsman.controlplane.binaries import Finder, Mirrors
url = sys.argv[1]
print(Finder(environment=os.environ, mirrors=Mirrors(url, url)).find().etcd)
"""


@needs_linux
def test_processes_that_want_the_same_at_once_make_it_once(tmp_path: Path, publisher: Publisher) -> None:
    for binary in Binary:
        publisher.publish(binary, b"x" * 5_000_000)
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"}

    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-c", FIND, publisher.url]
        processes = [
            stack.enter_context(
                subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            )
            for _ in range(3)
        ]
        statuses = [process.wait(60) for process in processes]

    assert statuses == [0, 0, 0]
    assert publisher.asked_for("/kube-apiserver") == 1
    assert publisher.asked_for(".tar.gz") == 1


def test_behind_a_proxy_names_are_the_proxys_to_look_up() -> None:
    assert downloads.is_reachable("https://name.invalid", {"HTTPS_PROXY": "http://127.0.0.1:3128"})
    assert not downloads.is_reachable("https://name.invalid", {})
