"""`python -m pointsman.controlplane`: have the binaries ready, so that what comes next need not wait for them."""

from __future__ import annotations

import sys

from pointsman import errors
from pointsman.controlplane import binaries


def main() -> int:
    """Find or make the binaries and print where they are."""
    try:
        found = binaries.Finder().find()
    except errors.PointsmanError as error:
        print(error.message, file=sys.stderr)
        return 1
    for path in (found.etcd, found.api_server, found.controller_manager):
        if path is not None:
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
