# The images that need no CUDA. One stage each: triton-cpu, gateway, export.
ARG PYTHON_IMAGE=python:3.12.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
ENV PATH=/opt/car-analyzer/bin:$PATH
RUN python3 -m venv /opt/car-analyzer
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY client client
COPY export export
COPY server server
COPY gateway gateway

FROM build AS build-triton-cpu
RUN --mount=type=cache,target=/root/.cache/pip pip install --constraint constraints.txt '.[server,sign]'

FROM build AS build-gateway
RUN --mount=type=cache,target=/root/.cache/pip pip install --constraint constraints.txt '.[gateway]'

FROM build AS build-export
# PyTorch without CUDA: an export computes on the CPU, and the image is gigabytes smaller.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt --extra-index-url "${TORCH_INDEX}" '.[export,sign,zoo]'

FROM ${PYTHON_IMAGE} AS base
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN useradd --uid 1000 --user-group --no-create-home --home-dir /tmp car-analyzer \
    && install --directory --owner=1000 --group=1000 /models
ENV PATH=/opt/car-analyzer/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1
COPY deploy/docker/healthcheck.py /usr/local/bin/
WORKDIR /tmp
USER 1000:1000

FROM base AS triton-cpu
LABEL org.opencontainers.image.title="car-analyzer Triton for CPUs" \
      org.opencontainers.image.description="The Triton of the nvidia-pytriton wheel, kept running by car-analyzer serve"
COPY --from=build-triton-cpu /opt/car-analyzer /opt/car-analyzer
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=6 \
    CMD ["healthcheck.py", "http://127.0.0.1:8000/v2/models/car_analyzer/ready"]
CMD ["car-analyzer", "serve", "--repository", "/models", "--host", "0.0.0.0"]

FROM base AS gateway
LABEL org.opencontainers.image.title="car-analyzer gateway" \
      org.opencontainers.image.description="POST /analyze and GET /health in front of a Triton"
COPY --from=build-gateway /opt/car-analyzer /opt/car-analyzer
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=10s --start-period=30s --retries=6 \
    CMD ["healthcheck.py", "http://127.0.0.1:5000/health"]
CMD ["car-analyzer", "gateway", "--host", "0.0.0.0"]

FROM base AS export
LABEL org.opencontainers.image.title="car-analyzer export" \
      org.opencontainers.image.description=".pth files to a checked model repository, once"
COPY --from=build-export /opt/car-analyzer /opt/car-analyzer
# One-shot: there is nothing to ask after its health.
HEALTHCHECK NONE
ENTRYPOINT ["car-analyzer", "export"]
CMD ["--help"]
