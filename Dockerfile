# SPDX-License-Identifier: Apache-2.0
#
# An image with nothing but the binaries. Take one from it:
#
#     COPY --from=cleanimg-init /usr/local/bin/cleanimg-init /usr/local/bin/
#     ENTRYPOINT ["/usr/local/bin/cleanimg-init", "--"]
#
# or run it as an init container, with hooks mounted at /etc/cleanimg-init/hooks.d.

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=auto -ldflags="-s -w -X github.com/cleanstart-dev/cleanimg-init/cmd/internal/version.Version=${VERSION}" -o /out/ ./cmd/...

FROM scratch
LABEL org.opencontainers.image.title="cleanimg-init" \
      org.opencontainers.image.description="PID 1 and init tools for container images without a shell" \
      org.opencontainers.image.vendor="CleanStart" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/cleanstart-dev/cleanimg-init"
COPY --from=build /out/ /usr/local/bin/
COPY cmd/links/ /usr/local/bin/
# A number: without /etc/passwd there is no name, and Kubernetes' runAsNonRoot
# cannot tell who a name is.
USER 65532:65532
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/cleanimg-init"]
