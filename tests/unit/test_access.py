"""What tenants' resources may make the operator reach, tried as someone who wants more would try."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman import hosts
from pointsman.access import SECRET_ANNOTATION, Access
from pointsman.api.conditions import Reason
from pointsman.errors import PointsmanError, Retryable, Terminal


def resolving(names: Mapping[str, Sequence[str]]) -> Callable[[str, int], Sequence[str]]:
    def resolve(host: str, port: int) -> Sequence[str]:
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return names[host]

    return resolve


def refused(reason: Reason, call: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(Terminal) as caught:
        call(*arguments)
    assert caught.value.reason is reason
    return caught.value.message


# Hosts.


def test_a_public_host_is_reached_at_the_address_that_was_checked() -> None:
    allowed = Access(resolve=resolving({"api.example.com": ["93.184.216.34"]}))
    assert allowed.check_host("api.example.com", 443) == "93.184.216.34"


def test_ipv4_comes_first_and_all_addresses_are_offered() -> None:
    allowed = Access(resolve=resolving({"two.example.com": ["2606:2800:220:1::1", "93.184.216.34"]}))
    assert allowed.addresses("two.example.com", 443) == ("93.184.216.34", "2606:2800:220:1::1")


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("169.254.169.254", id="metadata"),
        pytest.param("169.254.170.2", id="container credentials"),
        pytest.param("fd00:ec2::254", id="metadata over IPv6"),
        pytest.param("fd00:ec2::23", id="pod identity over IPv6"),
        pytest.param("fd20:ce::254", id="Google's metadata over IPv6"),
        pytest.param("100.100.100.200", id="Alibaba's metadata"),
        pytest.param("168.63.129.16", id="Azure's host agent"),
        pytest.param("192.0.0.192", id="Oracle's metadata"),
        pytest.param("169.254.1.1", id="link-local"),
        pytest.param("fe80::1", id="link-local IPv6"),
        pytest.param("fe80::1%eth0", id="link-local with a zone"),
        pytest.param("0.0.0.0", id="unspecified, which Linux takes for loopback"),
        pytest.param("0.1.2.3", id="this network"),
        pytest.param("::", id="unspecified IPv6"),
        pytest.param("127.0.0.1", id="loopback"),
        pytest.param("127.255.255.254", id="the far end of loopback"),
        pytest.param("::1", id="loopback IPv6"),
        pytest.param("224.0.0.1", id="multicast"),
        pytest.param("ff02::1", id="multicast IPv6"),
        pytest.param("255.255.255.255", id="broadcast"),
        pytest.param("240.0.0.1", id="reserved"),
        pytest.param("::ffff:127.0.0.1", id="loopback mapped into IPv6"),
        pytest.param("::ffff:a9fe:a9fe", id="metadata mapped into IPv6"),
        pytest.param("::ffff:93.184.216.34", id="anything mapped into IPv6"),
        pytest.param("::127.0.0.1", id="loopback, IPv4-compatible"),
        pytest.param("64:ff9b::a9fe:a9fe", id="metadata behind NAT64"),
        pytest.param("64:ff9b::7f00:1", id="loopback behind NAT64"),
        pytest.param("64:ff9b::a00:1", id="a private address behind NAT64"),
        pytest.param("2002:a9fe:a9fe::1", id="metadata inside 6to4"),
        pytest.param("2002:7f00:1::", id="loopback inside 6to4"),
        pytest.param("10.0.0.5", id="private"),
        pytest.param("172.16.0.1", id="private, the middle range"),
        pytest.param("192.168.1.1", id="private, a home"),
        pytest.param("100.64.0.1", id="carrier-grade NAT"),
        pytest.param("fc00::1", id="unique local"),
    ],
)
def test_no_name_and_no_literal_leads_inside(address: str) -> None:
    allowed = Access(resolve=resolving({"innocent.example.com": [address]}))
    refused(Reason.ENDPOINT_NOT_ALLOWED, allowed.check_host, "innocent.example.com", 443)
    refused(Reason.ENDPOINT_NOT_ALLOWED, allowed.check_host, address, 443)


def test_one_bad_address_among_good_ones_refuses_the_host() -> None:
    allowed = Access(resolve=resolving({"mixed.example.com": ["93.184.216.34", "169.254.169.254"]}))
    refused(Reason.ENDPOINT_NOT_ALLOWED, allowed.check_host, "mixed.example.com", 443)


@pytest.mark.parametrize("address", ["169.254.169.254", "fd00:ec2::254", "0.0.0.0", "fe80::1", "224.0.0.1"])
def test_listing_a_host_does_not_open_metadata_and_its_like(address: str) -> None:
    allowed = Access(allowed_hosts=("*",), allow_loopback=True, resolve=resolving({"listed.example.com": [address]}))
    refused(Reason.ENDPOINT_NOT_ALLOWED, allowed.check_host, "listed.example.com", 443)


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("2130706433", id="decimal"),
        pytest.param("0x7f000001", id="hexadecimal"),
        pytest.param("017700000001", id="octal"),
        pytest.param("0177.0.0.1", id="octal part"),
        pytest.param("0x7f.0.0.1", id="hexadecimal part"),
        pytest.param("127.1", id="short form"),
        pytest.param("127.0.0.01", id="leading zero"),
        pytest.param("127.0.0.1.", id="final dot"),
        pytest.param("[::1]", id="brackets"),
        pytest.param("::1%lo", id="zone"),
        pytest.param("0:0:0:0:0:0:0:1", id="long form"),
        pytest.param("１２７.０.０.１", id="full-width digits"),
        pytest.param("127。0。0。1", id="ideographic dots"),
        pytest.param("loc\u0430lhost", id="a Cyrillic letter"),
        pytest.param("\u212aubernetes.default.svc", id="the Kelvin sign, which lower-cases to k"),
        pytest.param("localhost\x00.example.com", id="NUL"),
        pytest.param("local host", id="blank"),
        pytest.param("localhost\n", id="line end"),
        pytest.param("user@localhost", id="user"),
        pytest.param("localhost/", id="slash"),
        pytest.param("localhost#.example.com", id="fragment"),
        pytest.param("a..b", id="empty label"),
        pytest.param("", id="nothing"),
        pytest.param(".", id="a dot"),
        pytest.param("-a.example.com", id="leading dash"),
        pytest.param("a" * 64 + ".example.com", id="a label too long"),
        pytest.param("*.example.com", id="a pattern"),
    ],
)
def test_spellings_that_clients_read_differently_are_refused(host: str) -> None:
    # Even a resolver that would answer with a good address is not asked.
    allowed = Access(resolve=lambda host, port: ["93.184.216.34"])
    refused(Reason.ENDPOINT_NOT_ALLOWED, allowed.check_host, host, 443)


def test_loopback_is_open_only_where_the_settings_say_so() -> None:
    allowed = Access(allow_loopback=True, resolve=resolving({"localhost": ["::1", "127.0.0.1"]}))
    assert allowed.check_host("localhost", 6333) == "127.0.0.1"
    assert allowed.check_host("127.0.0.1", 6333) == "127.0.0.1"
    assert allowed.check_host("LocalHost.", 6333) == "127.0.0.1"
    assert allowed.check_host("[::1]", 6333) == "::1"


def test_a_private_address_needs_the_host_on_the_list() -> None:
    names = resolving({"qdrant.search.svc": ["10.96.7.7"]})
    message = refused(Reason.ENDPOINT_NOT_ALLOWED, Access(resolve=names).check_host, "qdrant.search.svc", 6333)
    assert message == "qdrant.search.svc has a private address; have the host added to allowedHosts"
    assert Access(allowed_hosts=("*.svc",), resolve=names).check_host("qdrant.search.svc", 6333) == "10.96.7.7"


@pytest.mark.parametrize(
    ("pattern", "host", "is_allowed"),
    [
        pytest.param("api.example.com", "api.example.com", True, id="exact"),
        pytest.param("API.example.com.", "api.EXAMPLE.com", True, id="case and final dot"),
        pytest.param("api.example.com", "xapi.example.com", False, id="longer to the left"),
        pytest.param("api.example.com", "api.example.com.evil.net", False, id="longer to the right"),
        pytest.param("*.example.com", "a.b.example.com", True, id="below a suffix"),
        pytest.param("*.example.com", "example.com", False, id="the suffix itself"),
        pytest.param("*.example.com", "notexample.com", False, id="half a label"),
        pytest.param("*.1.1", "1.1.1.1", False, id="a suffix takes in no addresses"),
        pytest.param("1.1.1.1", "1.1.1.1", True, id="an address"),
        pytest.param("*", "anything.example.org", True, id="all"),
    ],
)
def test_the_list_of_hosts_decides(pattern: str, host: str, is_allowed: bool) -> None:
    allowed = Access(allowed_hosts=(pattern,), resolve=lambda host, port: ["93.184.216.34"])
    if is_allowed:
        assert allowed.check_host(host, 443) in ("93.184.216.34", "1.1.1.1")
    else:
        refused(Reason.ENDPOINT_NOT_ALLOWED, allowed.check_host, host, 443)


@pytest.mark.parametrize(
    ("denied", "host", "port"),
    [
        pytest.param("10.96.0.1", "10.96.0.1", 443, id="by its address"),
        pytest.param("10.96.0.1", "alias.example.com", 443, id="by a name of the tenant's for its address"),
        pytest.param("api.cluster", "alias.example.com", 443, id="denied by name, reached by another"),
        pytest.param("api.cluster", "api.cluster", 443, id="denied by name, reached by it"),
        pytest.param("10.96.0.1:443", "alias.example.com", 443, id="denied with its port"),
        pytest.param("127.0.0.1:6443", "localhost", 6443, id="on loopback"),
        pytest.param("127.0.0.1:6443", "127.8.8.8", 6443, id="on loopback, by another address of it"),
        pytest.param("[::1]:6443", "127.0.0.1", 6443, id="on loopback, by the other family"),
        pytest.param("unused", "kubernetes.default.svc", 443, id="by its usual name"),
        pytest.param("unused", "KUBERNETES.default.svc.cluster.local.", 443, id="by its full name, shouted"),
    ],
)
def test_the_api_server_is_never_reached(denied: str, host: str, port: int) -> None:
    names = {
        "alias.example.com": ["10.96.0.1"],
        "api.cluster": ["10.96.0.1"],
        "localhost": ["127.0.0.1"],
        "kubernetes.default.svc": ["10.96.0.1"],
    }
    allowed = Access(allowed_hosts=("*",), allow_loopback=True, denied_hosts=(denied,), resolve=resolving(names))
    refused(Reason.ENDPOINT_NOT_ALLOWED, allowed.check_host, host, port)


def test_a_denied_port_leaves_the_others_open() -> None:
    allowed = Access(allow_loopback=True, denied_hosts=("127.0.0.1:6443",))
    assert allowed.check_host("127.0.0.1", 6333) == "127.0.0.1"


def test_a_name_that_does_not_resolve_may_resolve_later() -> None:
    with pytest.raises(Retryable) as caught:
        Access(resolve=resolving({})).check_host("gone.example.com", 443)
    assert caught.value.reason is Reason.HOST_NOT_FOUND


def test_the_system_resolver_answers_for_a_literal() -> None:
    assert hosts.resolve("127.0.0.1", 80) == ["127.0.0.1"]


@given(st.ip_addresses())
def test_only_global_addresses_pass_by_default(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    try:
        Access().check_host(str(address), 443)
    except Terminal:
        return
    assert address.is_global or address in ipaddress.ip_network("64:ff9b::/96")
    assert not address.is_multicast


@given(st.ip_addresses(v=4))
def test_hiding_an_ipv4_address_in_ipv6_gains_nothing(address: ipaddress.IPv4Address) -> None:
    hidden = [
        f"::ffff:{address}",
        str(ipaddress.IPv6Address((0x0064FF9B << 96) | int(address))),
        str(ipaddress.IPv6Address((0x2002 << 112) | (int(address) << 80))),
    ]

    def passes(host: str) -> bool:
        try:
            Access().check_host(host, 443)
        except Terminal:
            return False
        return True

    assert passes(str(address)) or not any(passes(host) for host in hidden)


@given(st.text(max_size=40))
def test_any_text_for_a_host_is_allowed_or_refused_and_nothing_else(text: str) -> None:
    try:
        hosts.normalised(text)
    except Terminal as error:
        assert error.reason is Reason.ENDPOINT_NOT_ALLOWED


# URLs.


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("ftp://api.example.com/", id="another scheme"),
        pytest.param("file:///etc/passwd", id="a file"),
        pytest.param("gopher://api.example.com", id="gopher"),
        pytest.param("https:///v1", id="no host"),
        pytest.param("https://user:pw@api.example.com/", id="credentials"),
        pytest.param("https://api.example.com@127.0.0.1/", id="a host that is a user"),
        pytest.param("https://api.example.com\\@127.0.0.1/", id="a backslash"),
        pytest.param("https://api.example.com#@127.0.0.1/", id="a fragment"),
        pytest.param("https://api.example.com?@127.0.0.1/", id="a query"),
        pytest.param("https://api.example.com:99999/", id="a port too high"),
        pytest.param("https://api.example.com:0/", id="port zero"),
        pytest.param("https://api.exa\tmple.com/", id="a tab"),
        pytest.param("https://api.example.com\n/", id="a line end"),
        pytest.param("https://[::1/", id="half a bracket"),
        pytest.param("https://127.0.0.1/", id="loopback"),
        pytest.param("http://169.254.169.254/latest", id="metadata"),
        pytest.param("http://2130706433/", id="a decimal address"),
        pytest.param("http://%31%32%37.0.0.1/", id="a percent-encoded address"),
        pytest.param("https://ａpi.example.com/", id="a full-width letter"),
    ],
)
def test_urls_that_could_mean_something_else_are_refused_without_being_shown(url: str) -> None:
    allowed = Access(resolve=lambda host, port: ["93.184.216.34"])
    message = refused(Reason.ENDPOINT_NOT_ALLOWED, allowed.check_url, url)
    assert "pw" not in message


def test_a_plain_url_passes() -> None:
    allowed = Access(resolve=lambda host, port: ["93.184.216.34"])
    allowed.check_url("https://api.example.com/v1")
    assert hosts.split_url("http://api.example.com:8080/v1") == ("http", "api.example.com", 8080)
    assert hosts.split_url("https://api.example.com/v1") == ("https", "api.example.com", 443)


# Secrets.


@pytest.mark.parametrize(
    ("annotation", "host", "is_allowed"),
    [
        pytest.param("api.openai.com", "api.openai.com", True, id="listed"),
        pytest.param(" a.example , API.openai.com ", "api.openai.com.", True, id="listed among others"),
        pytest.param("*.search.svc", "qdrant.search.svc", True, id="below a suffix"),
        pytest.param("*", "api.openai.com", False, id="a star is no list"),
        pytest.param("", "api.openai.com", False, id="empty"),
        pytest.param(",,", "api.openai.com", False, id="empty entries"),
        pytest.param("api.openai.com", "evil.net", False, id="another host"),
        pytest.param("api.openai.com", "api.openai.com.evil.net", False, id="a longer host"),
        pytest.param("*.", "api.openai.com", False, id="a suffix of nothing"),
    ],
)
def test_a_secret_goes_only_to_the_hosts_of_its_own_annotation(annotation: str, host: str, is_allowed: bool) -> None:
    if is_allowed:
        Access().check_secret("openai", {SECRET_ANNOTATION: annotation}, host)
    else:
        refused(Reason.SECRET_NOT_ALLOWED, Access().check_secret, "openai", {SECRET_ANNOTATION: annotation}, host)


def test_a_secret_without_the_annotation_goes_nowhere_and_the_message_says_what_to_do() -> None:
    message = refused(Reason.SECRET_NOT_ALLOWED, Access().check_secret, "openai", {}, "api.openai.com")
    assert message == (
        "Secret openai does not list api.openai.com; add it to its annotation pointsman.dev/allowed-hosts"
    )


# Files.


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "papers.jsonl").write_text("{}\n")
    (tmp_path / "data-private").mkdir()
    (tmp_path / "data-private" / "secret.jsonl").write_text("{}\n")
    (tmp_path / "data" / "out").symlink_to(tmp_path / "data-private")
    (tmp_path / "data" / "secret.jsonl").symlink_to(tmp_path / "data-private" / "secret.jsonl")
    (tmp_path / "data" / "in").symlink_to(tmp_path / "data" / "deep")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data" / "loop")
    os.mkfifo(tmp_path / "data" / "pipe")
    return tmp_path


def test_a_file_below_a_root_is_allowed_there_or_not_yet(root: Path) -> None:
    allowed = Access(file_roots=(root / "data",))
    assert allowed.check_file(f"file://{root}/data/papers.jsonl") == root / "data" / "papers.jsonl"
    assert allowed.check_file(f"file://localhost{root}/data/papers.jsonl") == root / "data" / "papers.jsonl"
    assert allowed.check_file(f"file://{root}/data/later.jsonl") == root / "data" / "later.jsonl"
    assert allowed.check_file(f"file://{root}/data//deep/../papers.jsonl") == root / "data" / "papers.jsonl"


def test_a_pattern_comes_back_with_its_folder_resolved(root: Path) -> None:
    allowed = Access(file_roots=(root / "data",))
    assert allowed.check_file(f"file://{root}/data/*.jsonl") == root / "data" / "*.jsonl"
    assert allowed.check_file(f"file://{root}/data/in/*.jsonl") == root / "data" / "deep" / "*.jsonl"
    assert allowed.check_file(f"file://{root}/data/*/x.jsonl") == root / "data" / "*" / "x.jsonl"


def test_a_link_that_stays_inside_is_followed(root: Path) -> None:
    allowed = Access(file_roots=(root / "data",))
    assert allowed.check_path(root / "data" / "in" / "x.jsonl") == root / "data" / "deep" / "x.jsonl"


def test_a_root_that_is_itself_a_link_is_resolved(root: Path) -> None:
    (root / "alias").symlink_to(root / "data")
    allowed = Access(file_roots=(root / "alias",))
    assert allowed.check_file(f"file://{root}/alias/papers.jsonl") == root / "data" / "papers.jsonl"


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/etc/passwd", id="elsewhere"),
        pytest.param("/proc/self/environ", id="our own environment"),
        pytest.param("{root}/data/../data-private/secret.jsonl", id="dots"),
        pytest.param("{root}/data-private/secret.jsonl", id="a folder whose name begins alike"),
        pytest.param("{root}/data/secret.jsonl", id="a link to a file outside"),
        pytest.param("{root}/data/out/secret.jsonl", id="a link to a folder outside"),
        pytest.param("{root}/data/out/*.jsonl", id="a pattern below a link"),
        pytest.param("{root}/data/deep/../../data-private/*.jsonl", id="a pattern below dots"),
        pytest.param("{root}/data/*/../../data-private/x", id="dots after a wildcard"),
        pytest.param("{root}/*/secret.jsonl", id="a wildcard above the root"),
        pytest.param("/*", id="a wildcard at the top"),
        pytest.param("{root}/data/loop", id="a loop of links"),
        pytest.param("{root}/data/pipe", id="a pipe"),
        pytest.param("{root}/data/deep", id="a folder"),
        pytest.param("{root}/data/" + "x" * 300, id="a name too long"),
        pytest.param("{root}/data/a\x00b", id="NUL"),
        pytest.param("", id="no path"),
    ],
)
def test_no_path_leads_out_of_the_roots(root: Path, path: str) -> None:
    allowed = Access(file_roots=(root / "data",))
    refused(Reason.FILE_NOT_ALLOWED, allowed.check_file, "file://" + path.replace("{root}", str(root)))


@pytest.mark.parametrize("uri", ["/data/x", "file:data/x", "file://host/data/x", "FILE:///data", "s3://b/k", ""])
def test_what_is_no_file_uri_is_refused(uri: str) -> None:
    refused(Reason.FILE_NOT_ALLOWED, Access(file_roots=(Path("/"),)).check_file, uri)


def test_every_match_of_a_pattern_is_judged_again(root: Path) -> None:
    allowed = Access(file_roots=(root / "data",))
    pattern = allowed.check_file(f"file://{root}/data/*.jsonl")
    matches = sorted(pattern.parent.glob(pattern.name))
    assert [match.name for match in matches] == ["papers.jsonl", "secret.jsonl"]
    assert allowed.check_path(matches[0]) == root / "data" / "papers.jsonl"
    refused(Reason.FILE_NOT_ALLOWED, allowed.check_path, matches[1])


def test_without_roots_nothing_may_be_read(root: Path) -> None:
    refused(Reason.FILE_NOT_ALLOWED, Access().check_file, f"file://{root}/data/papers.jsonl")


@given(st.lists(st.sampled_from(["..", ".", "", "data", "out", "in", "deep", "x"]), max_size=8))
def test_whatever_passes_is_below_a_root(parts: list[str]) -> None:
    allowed = Access(file_roots=(Path("/srv/data"),))
    try:
        found = allowed.check_file("file:///srv/" + "/".join(parts))
    except PointsmanError:
        return
    assert found.resolve().is_relative_to("/srv/data")


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_nothing_is_read_from_the_store_of_the_operator_though_it_is_below_a_root(root: Path, scheme: str) -> None:
    own = root / "store"
    (own / "datasets").mkdir(parents=True)
    (root / "link").symlink_to(own)
    allowed = Access(file_roots=(root,), store=f"{scheme}{own}")
    for path in ("store/datasets/*.jsonl", "store/../store/a.jsonl", "link/a.jsonl"):
        said = refused(Reason.FILE_NOT_ALLOWED, allowed.check_file, f"file://{root}/{path}")
        assert said.endswith("lies in the operator's own store, which no source may read; move it elsewhere")
    assert allowed.check_path(root / "store-beside.jsonl") == root.resolve() / "store-beside.jsonl"
