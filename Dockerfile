# syntax=docker/dockerfile:1
FROM rust:1.95-slim-bookworm AS build
WORKDIR /source
COPY Cargo.toml Cargo.lock build.rs README.md ./
COPY .cargo .cargo
COPY proto proto
COPY crates crates
COPY src src
COPY benches benches
# What `portcullis --version` tells: `--build-arg PORTCULLIS_COMMIT=$(git rev-parse --short=12 HEAD)`.
ARG PORTCULLIS_COMMIT
RUN cargo build --profile dist --locked --bin portcullis \
    && mkdir -p /out/data \
    && cp target/dist/portcullis /out/portcullis

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/portcullis /usr/local/bin/portcullis
COPY --from=build --chown=nonroot:nonroot /out/data /var/lib/portcullis
USER nonroot
ENV PORTCULLIS_DATA_DIR=/var/lib/portcullis
VOLUME /var/lib/portcullis
EXPOSE 7070
# The service listens on loopback, as everywhere: an address that others reach is yours to choose, knowing that this
# version neither encrypts nor authenticates (`--listen 0.0.0.0:7070 --insecure`).
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["/usr/local/bin/portcullis", "check-health"]
ENTRYPOINT ["/usr/local/bin/portcullis"]
CMD ["serve", "--log-format", "json"]
