# finn in a container.
#
#     build    wheels by their hashes ─▶ /opt/finn, what finn needs; /own/opt/finn, finn itself
#     system   the base with git and bubblewrap, without what nobody here uses
#     (last)   system + needs + finn: three layers, of which a new release changes the smallest
#
# `scripts/image` builds it with what is there and prints what is how large; `docker build .` is the same thing. Every
# step leaves the same bytes for the same inputs: bytecode is checked by hash and not by time, and no log, list or cache
# stays. The digest is that of the tag's index; `docker buildx imagetools inspect python:3.13-slim-trixie` tells today's.
# Any Debian with Python 3.11 or newer, venv and CA certificates will do: --build-arg BASE=…
ARG BASE=python:3.13-slim-trixie@sha256:9d2e5553305c7c7b0097999bb17187c69b921ccd6bc9d40e4bb5ebe652c00285


FROM ${BASE} AS build
WORKDIR /src

# Everything is fetched here, and only what the lock has a hash for. A pip.conf, and the certificate it names, can be lent
# for this step (--secret id=pip.conf,src=… --secret id=ca,src=…); neither stays.
COPY requirements.lock ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca \
    python3 -m venv /build \
    && /build/bin/pip download --no-cache-dir --quiet --only-binary=:all: --require-hashes -r requirements.lock -d /wheels \
    && /build/bin/pip install --no-cache-dir --quiet --no-index --find-links=/wheels hatchling

# What finn needs to run, which is less than what the lock holds: the tools that build it are not among it.
# Of the 400 services that botocore describes, finn speaks to one, and signs in by four.
COPY pyproject.toml ./
RUN python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" >needs \
    && python3 -m venv --without-pip /opt/finn \
    && /build/bin/pip --python /opt/finn/bin/python install --quiet --no-compile --no-index --find-links=/wheels -r needs \
    && find /opt/finn/lib/python3*/site-packages/botocore/data -mindepth 1 -maxdepth 1 -type d \
        ! -name s3 ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -r {} + \
    && find /opt/finn/bin -type f -delete \
    && /opt/finn/bin/python -m compileall -q --invalidation-mode checked-hash /opt/finn/lib

COPY README.md LICENSE ./
COPY agent agent
COPY gateway gateway
COPY grimoires grimoires
COPY persistence persistence
COPY scheduler scheduler
RUN /build/bin/python -m hatchling build --target wheel --directory /wheels \
    && /build/bin/pip --python /opt/finn/bin/python install --quiet --no-compile --no-warn-script-location \
        --no-deps --no-index --root /own /wheels/finn-*.whl \
    && /opt/finn/bin/python -m compileall -q --invalidation-mode checked-hash -s /own /own/opt/finn/lib


FROM ${BASE} AS system
# git asks for all of Perl, for commands that finn never gives, and brings servers. What Debian needs to install more on
# top of this image (perl-base, apt, dpkg's lists) stays, and so does every licence.
# The versions are those of the archive on the day of the build: an older one would lack its security updates.
# hadolint ignore=DL3008
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        -o Dpkg::Options::=--path-exclude=/usr/share/perl/* \
        -o Dpkg::Options::=--path-exclude=/usr/lib/*/perl/* \
        -o Dpkg::Options::=--path-exclude=/usr/lib/*/perl5/* \
        -o Dpkg::Options::=--path-exclude=/usr/lib/*/libperl.so* \
        ca-certificates git bubblewrap >/dev/null \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /tmp/* /root/.[!.]* \
        /usr/share/man /usr/share/info /usr/share/locale /usr/share/lintian /usr/share/bash-completion /usr/share/gitweb \
        /usr/share/python-wheels /usr/lib/*/gconv/IBM* /usr/lib/*/gconv/EBCDIC* \
        /usr/bin/scalar /usr/bin/git-shell /usr/bin/zipdetails /usr/bin/perldoc \
        /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- \
    && for name in scalar git-shell git-daemon git-http-backend git-http-push git-imap-send; do \
        rm -f "/usr/lib/git-core/$name"; done \
    && ln -sf ../../bin/git /usr/lib/git-core/git \
    && find /usr/share/doc -type f ! -name copyright -delete

# pip and what only a developer opens leave the standard library, and the rest of it is compiled: where the base brings
# bytecode at all, it is checked by the time of its source, which no two builds share.
RUN library=$(python3 -c "import sysconfig; print(sysconfig.get_path('stdlib'))") \
    && for name in ensurepip idlelib lib2to3 pydoc_data test tkinter turtledemo turtle.py; do rm -rf "${library:?}/$name"; done \
    && rm -rf "${library:?}"/config-* "${library:?}"/site-packages/* /usr/local/include \
        /usr/local/bin/pip* /usr/local/bin/idle* /usr/local/bin/pydoc* \
    && find "$library" -name __pycache__ -prune -exec rm -r {} + \
    && python3 -B -m compileall -q -f --invalidation-mode checked-hash "$library"

# The user, whose whole world is /data; and no file that would make anybody another one.
RUN echo 'finn:x:10001:10001:finn:/data:/usr/sbin/nologin' >>/etc/passwd \
    && echo 'finn:x:10001:' >>/etc/group \
    && install -d -o 10001 -g 10001 -m 0700 /data \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +


FROM scratch
# What a layer takes away from the one below it still weighs, and still lies there; so there is none below.
# hadolint ignore=DL3067
COPY --from=system / /
COPY --from=build /opt/finn /opt/finn
COPY --from=build /own /

ENV PATH=/opt/finn/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 \
    HOME=/data \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    FINN_DATA_DIR=/data \
    FINN_HOST=0.0.0.0
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-m", "gateway.alive"]
ENTRYPOINT ["finn"]
CMD ["serve"]

ARG BASE
ARG RELEASE=
ENV FINN_RELEASE=${RELEASE}
LABEL org.opencontainers.image.title="finn" \
    org.opencontainers.image.description="A persistent agent that one person owns: one process, one agent, one web page to talk to it." \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.base.name="${BASE}" \
    org.opencontainers.image.revision="${RELEASE}"
