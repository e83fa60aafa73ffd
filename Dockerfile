# ovrd in a container: built in one stage, run as a user of its own in another that has no compiler.
#
#   docker build -t ovrd . && docker run -p 127.0.0.1:8080:8080 -v ovrd-data:/var/lib/ovrd ovrd
#
# docker-compose.yml has the settings that it wants, TLS and monitoring.
FROM debian:bookworm-slim AS build
WORKDIR /src
COPY scripts/deps.sh scripts/
RUN scripts/deps.sh build && rm -rf /var/lib/apt/lists/*
COPY . .
RUN make -j"$(nproc)" all && make install PREFIX=/usr DESTDIR=/out

FROM debian:bookworm-slim
# Debian's stable versions, which it was built with: not pinned.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends \
        ca-certificates libcurl4 libgnutls30 libjansson4 liblapacke libmicrohttpd12 libnettle8 libopenblas0-pthread \
        libpng16-16 libsqlite3-0 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/ovrd --shell /usr/sbin/nologin ovrd \
    && install -d -o ovrd -g ovrd -m 750 /var/lib/ovrd
COPY --from=build /out/ /
ENV OVRD_DATA_DIR=/var/lib/ovrd \
    OVRD_LISTEN=0.0.0.0:8080 \
    OVRD_ADMIN_TOKEN_FILE=/var/lib/ovrd/admin-token
USER ovrd
VOLUME /var/lib/ovrd
WORKDIR /var/lib/ovrd
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s CMD ["ovrctl", "get", "/readyz", "--host", "http://127.0.0.1:8080"]
ENTRYPOINT ["/usr/bin/ovrd"]
