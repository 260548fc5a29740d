#!/bin/sh
# Start PostgreSQL on the folder $PGDATA, which the first start fills; the user is $PGUSER, whose password is in $PASSWORD_FILE.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --auth=scram-sha-256 --encoding=UTF8 --locale=C --username="$PGUSER" --pwfile="$PASSWORD_FILE" -D "$PGDATA"
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=
