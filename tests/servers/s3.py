"""As much of S3 as reading needs: listing, HEAD and ranged GET of objects in memory, for one pair of keys.

The signature is not computed again: what is checked is that the request was signed with the expected access key.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

ACCESS_KEY = "a-key"


@dataclass
class Server:
    """Its address, and its objects by bucket/key, which a test may change at any time."""

    endpoint: str
    objects: dict[str, bytes] = field(default_factory=dict)
    moved_to: str = ""
    """Where every request is sent on to."""
    access_key: str = ACCESS_KEY
    """The one that it lets in."""
    refusal: tuple[int, str] = (403, "InvalidAccessKeyId")
    """What it answers to another."""
    asked: int = 0
    """How many requests came."""


@contextlib.contextmanager
def start_s3() -> Iterator[Server]:
    """Serve on a free loopback port."""
    served = Server("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def log_message(self, *arguments: Any) -> None:
            pass

        def _answer(self, with_body: bool) -> None:
            status, headers, body = self._found()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if with_body or "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def _found(self) -> tuple[int, dict[str, str], bytes]:
            served.asked += 1
            if served.moved_to:
                return 307, {"Location": f"{served.moved_to}{self.path}", "Content-Length": "0"}, b""
            if f"Credential={served.access_key}/" not in self.headers.get("Authorization", ""):
                status, code = served.refusal
                return status, {}, f"<Error><Code>{code}</Code><Message>No</Message></Error>".encode()
            parts = urlsplit(self.path)
            path, query = unquote(parts.path).strip("/"), parse_qs(parts.query)
            if "list-type" in query:
                return 200, {"Content-Type": "application/xml"}, _listing(served.objects, path, query)
            content = served.objects.get(path)
            if content is None:
                return 404, {}, b"<Error><Code>NoSuchKey</Code><Message>No</Message></Error>"
            headers = {"ETag": _etag(content), "Last-Modified": "Wed, 02 Jan 2030 03:04:05 GMT"}
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if wanted is None:
                extra = {"Content-Length": str(len(content))} if self.command == "HEAD" else {}
                return 200, headers | extra, content
            first, last = int(wanted[1]), min(int(wanted[2]), len(content) - 1)
            return 206, headers | {"Content-Range": f"bytes {first}-{last}/{len(content)}"}, content[first : last + 1]

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    served.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


def _listing(objects: dict[str, bytes], bucket: str, query: dict[str, list[str]]) -> bytes:
    prefix = query.get("prefix", [""])[0]
    entries, folders = [], set()
    for path, content in sorted(objects.items()):
        key = path.removeprefix(f"{bucket}/")
        if not path.startswith(f"{bucket}/") or not key.startswith(prefix):
            continue
        rest = key.removeprefix(prefix)
        if "delimiter" in query and "/" in rest:
            folders.add(prefix + rest.partition("/")[0] + "/")
            continue
        entries.append(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size><ETag>{escape(_etag(content))}</ETag>"
            "<LastModified>2030-01-02T03:04:05.000Z</LastModified></Contents>"
        )
    entries += [f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(folders)]
    return (
        f"<ListBucketResult><Name>{bucket}</Name><IsTruncated>false</IsTruncated>"
        f"<KeyCount>{len(entries)}</KeyCount>{''.join(entries)}</ListBucketResult>"
    ).encode()
