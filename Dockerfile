# syntax=docker/dockerfile:1
# One static binary for gateway, services and jobs, on nothing else: `docker build -t tidegate .`
ARG RUST_VERSION=1.95

FROM docker.io/library/rust:${RUST_VERSION}-slim-bookworm AS build
# aws-lc (TLS) is C; glibc's static archive is in libc6-dev; lld comes with Rust on x86-64 only.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates gcc g++ libc6-dev lld make cmake \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# Static, also glibc: its resolver needs no shared files since 2.34. `--target` keeps the flag away from build scripts.
ENV RUSTFLAGS="-C target-feature=+crt-static"
ENV CARGO_PROFILE_RELEASE_STRIP=symbols
# AES-GCM for AVX-512 is 0.7 MB, and pays where a connection carries gigabits; AES-NI and AVX do for the rest.
ENV AWS_LC_SYS_CFLAGS="-DMY_ASSEMBLER_IS_TOO_OLD_FOR_512AVX"
# The whole program is put together for size: each crate's own code has been optimised for speed by then. Equal functions
# are kept once, and addresses to relocate as a bitmap, which is 1 MB less than their list.
ENV WHOLE_PROGRAM="-C opt-level=s -C link-arg=-fuse-ld=lld -C link-arg=-Wl,--icf=all,--pack-dyn-relocs=relr"
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    TARGET=$(rustc -vV | sed -n 's/^host: //p') \
 && cargo rustc --release --locked --bin tidegate --target "$TARGET" -- $WHOLE_PROGRAM \
 && install -D "target/$TARGET/release/tidegate" /out/tidegate

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tidegate" \
      org.opencontainers.image.description="REST/JSON and Server-Sent Events in front of NATS" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/tidegate/tidegate" \
      org.opencontainers.image.documentation="https://github.com/tidegate/tidegate/blob/main/docs/deploying.md" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/tidegate /tidegate
# Nobody; Kubernetes can tell that it is not root only from a number.
USER 65532:65532
# In a container loopback is nobody's: health and metrics listen for the orchestrator. The console on the same port is
# refused until it gets a token (TIDEGATE_ADMIN_TOKEN_FILE).
ENV TIDEGATE_ADMIN=0.0.0.0:9090
EXPOSE 8080 9090
ENTRYPOINT ["/tidegate"]
CMD ["serve"]
