# Sextant as an image, for x86-64 and arm64.
#
#   docker build .                     cpu: the server and ONNX Runtime; the models come as a volume or from a bucket
#   docker build --target cuda .       the same on CUDA 13 and cuDNN 9
#   docker build --target demo .       cpu with all-MiniLM-L6-v2 in it
#
# The bases are named by tag alone: their digests could not be looked up where this was written, and none is made up.
# Whoever needs the same image twice gives them, as --build-arg DEBIAN=debian:bookworm-slim@sha256:...; whoever wants the
# distribution's fixes builds with --pull.
ARG DEBIAN=debian:bookworm-slim
# Debian's glibc must not be newer than the oldest under the server: that of DEBIAN.
ARG RUST=rust:1.95-slim-bookworm
ARG CUDA=nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04

# --- The server ---------------------------------------------------------------------------------------------------------

FROM ${RUST} AS build
ENV CARGO_INCREMENTAL=0
WORKDIR /build
COPY Cargo.toml Cargo.lock build.rs ./
# The crates alone, under empty sources: this layer stays as long as these files do. Cargo.toml names the benches too.
RUN mkdir -p src benches/server \
    && touch src/lib.rs \
    && for file in src/main.rs benches/micro.rs benches/server/main.rs; do echo 'fn main() {}' > "$file"; done \
    && cargo build --locked --release --bin sextant
COPY openapi.yaml ./
COPY src src
# The sources may be older than what was built of the empty ones, and Cargo goes by time.
RUN touch src/lib.rs src/main.rs \
    && cargo build --locked --release --bin sextant \
    && cp target/release/sextant /sextant

# --- What it runs on ----------------------------------------------------------------------------------------------------

FROM ${DEBIAN} AS fetch
# What is fetched is pinned by digest; what fetches it may be as new as it likes.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /setup
COPY scripts/setup.py scripts/setup-requirements.txt scripts/

FROM fetch AS runtime
RUN python3 scripts/setup.py --only runtime

FROM fetch AS weights
RUN python3 scripts/setup.py --only weights

# The part of the root file system that all targets share. No package manager runs in what is shipped: the one package
# that it would bring, the certificates for https to buckets, is a file.
FROM fetch AS files
WORKDIR /image
COPY --from=build /sextant usr/local/bin/sextant
COPY LICENSE-APACHE LICENSE-MIT usr/local/share/doc/sextant/
COPY docker/sextant.toml etc/sextant/sextant.toml
# Any user can write: which one runs the server is known to whoever runs it only.
RUN mkdir -p etc/ssl/certs \
    && cp /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/ \
    && install --directory --mode=1777 cache models

# --- cpu ----------------------------------------------------------------------------------------------------------------

FROM ${DEBIAN} AS cpu
COPY --from=runtime /setup/.sextant/runtime /usr/local/lib/onnxruntime
COPY --from=files /image /
# Nothing is written but below /cache (copies of versions, checkpoints of a hub) and, by an import, /tmp and /models.
ENV ORT_DYLIB_PATH=/usr/local/lib/onnxruntime/libonnxruntime.so \
    SEXTANT_CONFIG=/etc/sextant/sextant.toml \
    SEXTANT_CACHE=/cache/hub \
    XDG_CACHE_HOME=/cache
# So that a read-only root needs no flag for it.
VOLUME /cache
# By number, which Kubernetes needs to see that it is not root. Any other does as well.
USER 65532:65532
EXPOSE 8080 9090
# The start takes as long as the models need to be fetched, loaded and measured. Kubernetes has probes of its own.
HEALTHCHECK --start-period=300s --interval=30s --timeout=15s --retries=3 CMD ["sextant", "health"]
ENTRYPOINT ["sextant"]
CMD ["serve"]
ARG SOURCE=""
ARG VERSION=0.1.0
ARG REVISION=""
LABEL org.opencontainers.image.title="sextant" \
      org.opencontainers.image.description="An embedding server that keeps vectors true" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# --- demo ---------------------------------------------------------------------------------------------------------------

FROM cpu AS import
COPY --from=weights /setup/.sextant/weights /weights
RUN ["sextant", "import", "/weights", "--models", "/models", "--name", "minilm", "--licence", "Apache-2.0", \
     "--reason", "built into the image", "--activate"]

FROM cpu AS demo
COPY --from=import /models /models

# --- cuda ---------------------------------------------------------------------------------------------------------------

FROM fetch AS runtime-cuda
RUN python3 scripts/setup.py --only runtime-cuda

# From VOLUME on the same as cpu, on another base.
FROM ${CUDA} AS cuda
COPY --from=runtime-cuda /setup/.sextant/runtime-cuda /usr/local/lib/onnxruntime
COPY --from=files /image /
ENV ORT_DYLIB_PATH=/usr/local/lib/onnxruntime/libonnxruntime.so \
    SEXTANT_CONFIG=/etc/sextant/sextant.toml \
    SEXTANT_CACHE=/cache/hub \
    XDG_CACHE_HOME=/cache
VOLUME /cache
USER 65532:65532
EXPOSE 8080 9090
HEALTHCHECK --start-period=300s --interval=30s --timeout=15s --retries=3 CMD ["sextant", "health"]
ENTRYPOINT ["sextant"]
CMD ["serve"]
ARG SOURCE=""
ARG VERSION=0.1.0
ARG REVISION=""
LABEL org.opencontainers.image.title="sextant" \
      org.opencontainers.image.description="An embedding server that keeps vectors true" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# A build that names no target gets the last stage.
FROM cpu
