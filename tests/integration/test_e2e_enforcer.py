"""The rules that the node of `make e2e` makes of NetworkPolicies hold in the kernel: what is refused is not reached."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from tests.integration import enforced

SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
EVERYTHING = list(enforced.TARGETS)


def obstacle() -> str:
    """Return why no pods can be made here; empty where they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "namespaces of networks need Linux and root"
    wanted = ("unshare", "ip", "iptables-restore")
    if missing := [program for program in wanted if shutil.which(program, path=SBIN) is None]:
        return f"{', '.join(missing)} not installed"
    tried = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip()


@pytest.mark.skipif(bool(obstacle()), reason=obstacle())
def test_what_policies_do_not_name_is_not_reached_and_all_is_where_there_are_none() -> None:
    command = [sys.executable, "-m", enforced.__name__]

    told = subprocess.run(
        ["unshare", "--net", "--mount", "--propagation=private", *command],
        env={**os.environ, "PATH": SBIN, "PYTHONPATH": os.pathsep.join(["operator", "."])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert told.returncode == 0, told.stderr
    free = dict.fromkeys(("client", "other", "node"), EVERYTHING)
    assert json.loads(told.stdout) == {
        "no rules": {**free, "unknown": EVERYTHING},
        # A pod of which nothing is known yet waits.
        "no policies": {**free, "unknown": []},
        "policies": {
            "client": ["http", "the node"],
            "other": ["the node", "the metadata"],
            "node": EVERYTHING,
            "unknown": [],
        },
        "no policies again": {**free, "unknown": []},
    }
