"""The control plane itself: that it is a real one, and that nothing of it is left behind."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from pointsman import errors
from pointsman.controlplane import admin, binaries, daemon, plane

pytestmark = pytest.mark.controlplane

Eventually = Callable[..., None]
PROGRAMS = {"etcd", "kube-apiserver", "kube-controller-manager"}
# A user of the control plane that tells where it is, and sleeps or ends without closing it.
USER = """
import os, sys, time
from pointsman.controlplane import plane
cluster = plane.start()
print(cluster.folder, cluster.server, cluster.supervisor_pid, flush=True)
if sys.argv[1] == "exits":
    sys.exit(0)
time.sleep(600)
"""


def processes_of(supervisor: int) -> list[psutil.Process]:
    process = psutil.Process(supervisor)
    return [process, *process.children()]


def is_listening(server: str) -> bool:
    host, port = server.removeprefix("https://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@pytest.fixture
def config_map(control_plane: plane.ControlPlane, namespace: str) -> Callable[..., admin.Object]:
    def create(name: str, **metadata: object) -> admin.Object:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}
        return control_plane.admin().create(f"/api/v1/namespaces/{namespace}/configmaps", body)

    return create


class TestItIsARealOne:
    def test_it_tells_the_version_that_was_asked_for(self, control_plane: plane.ControlPlane) -> None:
        if os.environ.get("KUBEBUILDER_ASSETS"):
            pytest.skip("the version is the user's own")
        assert control_plane.admin().get("/version")["gitVersion"] == "v1.34.4"

    def test_a_deleted_namespace_goes_with_all_that_is_in_it(
        self, control_plane: plane.ControlPlane, eventually: Eventually
    ) -> None:
        administrator = control_plane.admin()
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "short-lived"}}
        administrator.create("/api/v1/namespaces", body)
        administrator.create(
            "/api/v1/namespaces/short-lived/configmaps",
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "inside"}},
        )

        administrator.delete("/api/v1/namespaces/short-lived")

        eventually(lambda: not administrator.exists("/api/v1/namespaces/short-lived"))

    def test_what_an_owner_leaves_is_collected(
        self,
        control_plane: plane.ControlPlane,
        namespace: str,
        config_map: Callable[..., admin.Object],
        eventually: Eventually,
    ) -> None:
        administrator, path = control_plane.admin(), f"/api/v1/namespaces/{namespace}/configmaps"
        owner = config_map("owner")
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
        config_map("owned", ownerReferences=[reference])

        administrator.delete(f"{path}/owner")

        eventually(lambda: not administrator.exists(f"{path}/owned"))

    def test_whoever_has_no_certificate_may_do_nothing(self, control_plane: plane.ControlPlane) -> None:
        trusting = ssl.create_default_context(cafile=str(control_plane.folder / "ca.crt"))

        with pytest.raises(urllib.error.HTTPError, match="403") as raised:
            urllib.request.urlopen(f"{control_plane.server}/api/v1/secrets", context=trusting)
        raised.value.close()

    def test_etcd_is_reachable_for_nobody_else(self, control_plane: plane.ControlPlane) -> None:
        etcd = next(p for p in processes_of(control_plane.supervisor_pid) if p.name() == "etcd")

        assert etcd.net_connections("inet") == []
        assert stat.S_IMODE(control_plane.folder.stat().st_mode) == 0o700

    def test_definitions_are_established_when_they_were_applied(
        self, control_plane: plane.ControlPlane, namespace: str, tmp_path: Path
    ) -> None:
        (tmp_path / "crd.yaml").write_text(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n"
            "metadata: {name: things.try.pointsman.dev}\n"
            "spec:\n  group: try.pointsman.dev\n  scope: Namespaced\n  names: {kind: Thing, plural: things}\n"
            "  versions:\n  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}\n"
        )

        applied = admin.apply_crds(control_plane.kubeconfig, tmp_path)
        again = admin.apply_crds(control_plane.kubeconfig, tmp_path)

        assert applied == again == ["things.try.pointsman.dev"]
        thing = {"apiVersion": "try.pointsman.dev/v1", "kind": "Thing", "metadata": {"name": "one"}}
        control_plane.admin().create(f"/apis/try.pointsman.dev/v1/namespaces/{namespace}/things", thing)

    def test_an_error_says_what_was_asked_and_what_was_answered(self, control_plane: plane.ControlPlane) -> None:
        with pytest.raises(errors.Terminal) as raised:
            control_plane.admin().get("/api/v1/namespaces/absent")

        assert raised.value.message == ('GET /api/v1/namespaces/absent was answered 404: namespaces "absent" not found')


class TestNothingIsLeftBehind:
    def test_after_closing_no_process_no_port_and_no_folder_is_left(self) -> None:
        with plane.start() as started:
            processes = processes_of(started.supervisor_pid)
            assert {p.name() for p in processes} >= PROGRAMS
            assert is_listening(started.server)

        assert psutil.wait_procs(processes, 5)[1] == []
        assert not is_listening(started.server)
        assert not started.folder.exists()
        started.close()

    @pytest.mark.parametrize(
        ("user", "number"),
        [
            pytest.param("sleeps", signal.SIGKILL, id="killed"),
            pytest.param("sleeps", signal.SIGTERM, id="terminated"),
            pytest.param("sleeps", signal.SIGINT, id="interrupted"),
            pytest.param("exits", None, id="ended without closing"),
        ],
    )
    def test_however_its_user_ends_it_ends_too(self, user: str, number: signal.Signals | None) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", USER, user], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            folder, server, supervisor = process.stdout.readline().split()
            processes = [] if number is None else processes_of(int(supervisor))

            if number is not None:
                process.send_signal(number)
            process.wait(20)

        assert psutil.wait_procs(processes, 10)[1] == []
        assert not psutil.pid_exists(int(supervisor))
        assert not is_listening(server)
        assert not Path(folder).exists()

    def test_when_the_supervisor_is_killed_closing_still_ends_the_rest(self) -> None:
        with plane.start() as started:
            processes = processes_of(started.supervisor_pid)
            processes[0].kill()

        assert psutil.wait_procs(processes[1:], 5)[1] == []
        assert not started.folder.exists()

    def test_a_fork_of_its_user_does_not_end_it(self, control_plane: plane.ControlPlane) -> None:
        pid = os.fork()
        if pid == 0:
            control_plane.close()
            os._exit(0)
        os.waitpid(pid, 0)

        assert control_plane.is_running
        assert control_plane.admin().is_ready()


class TestTheUsersOwnClustersAreSafe:
    def test_the_users_kubeconfig_and_home_stay_as_they_were(self, tmp_path: Path) -> None:
        own = tmp_path / "own"
        own.write_text("not even valid: [")
        home = tmp_path / "home"
        home.mkdir()
        cache = str(binaries.Finder().home().parents[1])
        environment = {**os.environ, "KUBECONFIG": str(own), "HOME": str(home), "XDG_CACHE_HOME": cache}

        subprocess.run([sys.executable, "-c", USER, "exits"], env=environment, check=True, capture_output=True)

        assert own.read_text() == "not even valid: ["
        assert list(home.iterdir()) == []

    def test_two_control_planes_do_not_know_each_other(self, control_plane: plane.ControlPlane) -> None:
        with plane.start() as other:
            other.admin().create(
                "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "only-here"}}
            )

            assert not control_plane.admin().exists("/api/v1/namespaces/only-here")
            with pytest.raises(errors.PointsmanError):
                crossed = admin.Admin(control_plane.kubeconfig)
                crossed.server = other.server
                crossed.get("/api/v1/namespaces")


class TestWhatGoesWrong:
    @pytest.fixture
    def taken_port(self) -> Iterator[int]:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            yield taken.getsockname()[1]

    def test_a_port_that_was_taken_meanwhile_is_replaced(self, taken_port: int) -> None:
        ports = iter([taken_port, plane.free_port()])

        with plane.start(choose_port=lambda: next(ports)) as started:
            assert started.admin().is_ready()
            assert not started.server.endswith(f":{taken_port}")

    def test_a_program_that_does_not_start_is_named_with_the_end_of_its_log(self, tmp_path: Path) -> None:
        broken = tmp_path / "kube-apiserver"
        broken.write_text("#!/bin/sh\necho 'Error: unknown flag: --bind-address' >&2\nexit 1\n")
        broken.chmod(0o755)
        etcd = binaries.Finder().find().etcd

        with pytest.raises(errors.Terminal) as raised:
            plane.start(binaries.Binaries(etcd, broken, None))

        assert raised.value.message == (
            "kube-apiserver ended with status 1; its log ends:\nError: unknown flag: --bind-address"
        )

    def test_a_program_that_never_gets_ready_is_ended_in_time(self, tmp_path: Path) -> None:
        idle = tmp_path / "kube-apiserver"
        idle.write_text("#!/bin/sh\necho waiting for nothing\nexec sleep 600\n")
        idle.chmod(0o755)
        etcd = binaries.Finder().find().etcd

        with pytest.raises(errors.Terminal, match="kube-apiserver was not ready in time; the logs end:") as raised:
            plane.start(binaries.Binaries(etcd, idle, None), within=timedelta(seconds=1))

        assert raised.value.message.endswith("kube-apiserver:\nwaiting for nothing")

    def test_a_program_that_dies_later_is_named_too(self, eventually: Eventually) -> None:
        with plane.start() as started:
            next(p for p in processes_of(started.supervisor_pid) if p.name() == "etcd").kill()

            eventually(lambda: not started.is_running)
            with pytest.raises(errors.Terminal, match="etcd ended with status -9; its log ends:"):
                started.check()


class TestTheOneInTheBackground:
    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[daemon.Place]:
        place = daemon.Place(tmp_path / "background")
        yield place
        daemon.down(place)

    def test_it_stays_until_it_is_taken_down(self, place: daemon.Place) -> None:
        state = daemon.up(place)
        again = daemon.up(place)

        assert again == state
        assert admin.Admin(state.kubeconfig).is_ready()
        assert daemon.down(place) == state
        assert daemon.down(place) is None
        assert not is_listening(state.server)
        assert not state.kubeconfig.exists()

    def test_the_number_of_a_killed_one_is_never_taken_for_it(
        self, place: daemon.Place, eventually: Eventually
    ) -> None:
        state = daemon.up(place)
        os.kill(state.pid, signal.SIGKILL)
        eventually(lambda: not is_listening(state.server))
        # Given another process that got the number of the killed one.
        place.state.write_text(f'{{"pid": {os.getpid()}, "server": "", "kubeconfig": ""}}')

        assert daemon.down(place) is None
        assert not place.state.exists()
