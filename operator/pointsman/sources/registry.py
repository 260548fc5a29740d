"""Which class reads which kind of source?"""

from __future__ import annotations

from collections.abc import Mapping

from pointsman import ports
from pointsman.access import Access
from pointsman.api import dataset
from pointsman.api.conditions import Reason
from pointsman.errors import Terminal


def open_source(spec: dataset.Source, credentials: Mapping[str, str], access: Access) -> ports.Source:
    """Open a dataset's source. Nothing is read before `read`; files are looked for, hosts judged.

    `credentials` is what the Secret of the spec holds: for files accessKeyID, secretAccessKey, sessionToken, endpoint
    and region; for PostgreSQL username, password and, for a private authority, ca.crt. Raises Terminal where the spec
    or the settings do not allow it.
    """
    # Imported when wanted: a process that reads files has no use for a database's client, nor the other way round.
    if spec.files is not None:
        from pointsman.sources.files import FilesSource

        return FilesSource(spec.files, spec.id_field, credentials, access)
    if spec.postgres is not None:
        from pointsman.sources.postgres import PostgresSource

        return PostgresSource(spec.postgres, spec.id_field, credentials, access)
    raise Terminal(Reason.INVALID_SPEC, "source names no kind; wanted exactly one of files and postgres")
