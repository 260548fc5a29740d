"""Fetches a published file and proves by its published checksum that it is the one that was meant."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import tarfile
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, cast

import httpx

from pointsman import errors
from pointsman.api.conditions import Reason
from pointsman.controlplane import progress, release

_CONNECT_SECONDS = 2.0
_READ_SECONDS = 30.0


def is_reachable(url: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Say within about two seconds whether there is any use in asking for a URL.

    Only the name is looked up, since no time limit of a client covers that, and a closed network may let a look-up
    hang for half a minute. Behind a proxy the proxy looks names up, so there the answer is yes.
    """
    if any(environment.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    host = httpx.URL(url).host
    found = threading.Event()

    def look_up() -> None:
        with contextlib.suppress(OSError):
            socket.getaddrinfo(host, None)
            found.set()

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(_CONNECT_SECONDS)
    return found.is_set()


def fetch(download: release.Download, folder: Path, line: progress.Progress) -> Path:
    """Return the path of the binary below `folder`, executable, its checksum verified.

    Raises Retryable where it cannot be fetched, Terminal where the checksum differs.
    """
    timeout = httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS)
    published = folder / download.file_name
    try:
        with httpx.Client(timeout=timeout, follow_redirects=True) as client:
            response = client.get(download.checksum_url)
            response.raise_for_status()
            wanted = _checksum(response.text, download.file_name)
            found = _save(client, download.url, published, line)
    except httpx.HTTPStatusError as error:
        raise _unavailable(download, f"status {error.response.status_code}") from error
    except httpx.HTTPError as error:
        raise _unavailable(download, type(error).__name__) from error
    if found != wanted:
        published.unlink()
        raise errors.Terminal(
            Reason.CLUSTER_UNREACHABLE,
            f"{download.url} has checksum {found[:12]}…, published is {wanted[:12]}…: it was changed on its way here",
        )
    binary = published if download.member is None else _extract(published, download.member, folder)
    binary.chmod(0o755)
    return binary


def _save(client: httpx.Client, url: str, path: Path, line: progress.Progress) -> str:
    digest = hashlib.sha256()
    with client.stream("GET", url) as response, path.open("wb") as file:
        response.raise_for_status()
        total = int(response.headers.get("Content-Length", 0)) // 1_000_000
        for part in response.iter_bytes(1 << 20):
            file.write(part)
            digest.update(part)
            line.tick(f"{file.tell() // 1_000_000} of {total or '?'} MB")
    return digest.hexdigest()


def _checksum(text: str, file_name: str) -> str:
    """Return the checksum from a file that holds one alone, or a line with checksum and name for each file."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    for words in lines:
        if len(words) == 1 or words[-1].lstrip("*") == file_name:
            return words[0].lower()
    raise errors.Retryable(Reason.CLUSTER_UNREACHABLE, f"no checksum is published for {file_name}")


def _extract(archive: Path, member: str, folder: Path) -> Path:
    binary = folder / member.rsplit("/", 1)[1]
    with contextlib.ExitStack() as stack:
        if archive.suffix == ".zip":
            source = stack.enter_context(stack.enter_context(zipfile.ZipFile(archive)).open(member))
        else:
            packed = stack.enter_context(tarfile.open(archive))
            source = cast("IO[bytes]", packed.extractfile(member))
        with binary.open("wb") as file:
            while part := source.read(1 << 20):
                file.write(part)
    archive.unlink()
    return binary


def _unavailable(download: release.Download, why: str) -> errors.Retryable:
    return errors.Retryable(Reason.CLUSTER_UNREACHABLE, f"{download.url} could not be fetched: {why}")
