ARG BASE
FROM ${BASE}
RUN apt-get update --quiet \
 && apt-get install --yes --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/*
