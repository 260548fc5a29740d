# The image of all roles: operator, gateway and worker are arguments of its one program.
#
#   make image                                     builds it with buildah or docker, whichever is there
#   docker build --build-arg BASE=registry/python  from another base, which must have Python 3.11 or newer as python3
#
# A tag is another image next month: who releases one names the base by digest, BASE=registry/python:3.13@sha256:…

ARG BASE=python:3.13-slim-bookworm
# The same with pip and venv, where the base has none of them.
ARG BUILDER=${BASE}

FROM ${BUILDER} AS packages
WORKDIR /build
COPY requirements-image.lock .
# An index of one's own; `--build-arg PIP_INDEX_URL` passes on what the environment says. It stays in this stage.
ARG PIP_INDEX_URL
# Wheels alone, each with its hash: nothing is compiled, and nothing is run while installing.
RUN python3 -m venv /opt/pointsman \
 && /opt/pointsman/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-compile \
      --only-binary :all: --require-hashes --requirement requirements-image.lock
# Out goes what never runs here: pip, tests and headers of packages, and two large parts that nothing imports, a second
# client of Kubernetes and one of Arrow Flight. What is left is compiled, since a read-only container could not keep it.
RUN /opt/pointsman/bin/python -m pip uninstall --quiet --yes --disable-pip-version-check setuptools pip 2> /dev/null \
 && rm -f /opt/pointsman/bin/pip* /opt/pointsman/bin/[Aa]ctivate* \
 && find /opt/pointsman -depth -type d \( -name tests -o -name __pycache__ \) -exec rm -rf {} + \
 && rm -rf /opt/pointsman/lib/python3*/site-packages/kubernetes/aio \
      /opt/pointsman/lib/python3*/site-packages/pyarrow/include /opt/pointsman/lib/python3*/site-packages/pyarrow/src \
      /opt/pointsman/lib/python3*/site-packages/pyarrow/*flight* \
 && find /opt/pointsman -type f \( -name '*.pyi' -o -name '*.pxd' -o -name '*.h' -o -name '*.hpp' \) -delete \
 && /opt/pointsman/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/pointsman/lib
# Where the program itself will be: a layer of its own, since it changes every day and its packages do not.
RUN echo /opt/pointsman/program \
      > "$(/opt/pointsman/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pointsman.pth" \
 && printf '#!/opt/pointsman/bin/python\nimport sys\n\nfrom pointsman.cli.main import main\n\nsys.exit(main())\n' \
      > /opt/pointsman/bin/pointsman \
 && chmod 0755 /opt/pointsman/bin/pointsman \
 && ln -s pointsman /opt/pointsman/bin/kubectl-pointsman

FROM packages AS program
COPY operator/pointsman /opt/pointsman/program/pointsman
RUN /opt/pointsman/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/pointsman/program

FROM ${BASE}
# The base's own pip, where it has one: nothing can be installed in a container.
RUN rm -rf /usr/local/lib/python3*/site-packages/pip* /usr/local/lib/python3*/ensurepip /usr/local/bin/pip*
COPY --from=packages /opt/pointsman /opt/pointsman
COPY --from=program /opt/pointsman/program /opt/pointsman/program
COPY LICENSE /usr/share/doc/pointsman/LICENSE
# Everything that is ever written goes to /tmp, where a read-only container has a volume of its own.
ENV PATH=/opt/pointsman/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    USER=pointsman \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 65532:65532
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="pointsman" \
      org.opencontainers.image.description="A Kubernetes operator for the lifecycle of vector indexes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENTRYPOINT ["/opt/pointsman/bin/pointsman"]
