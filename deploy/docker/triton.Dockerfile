# NVIDIA's Triton with Pillow, pillow-heif and cykooz-resizer, and `car-analyzer serve` to keep it running.
#
# `serve` is the command, not tritonserver itself, for two reasons that no platform's liveness probe covers: a Triton goes
# on saying that it is ready when the processes of its Python models are dead, and a process that stood still for more
# than a second can answer with another photo's pixels, unless somebody is there to replace it and it may end itself.
#
# The administrator's key: `serve` reads it from --admin-key-file or $CAR_ANALYZER_ADMIN_KEY, or makes one that nobody
# knows. Triton takes it on its command line only, so it stands there for the first moments; `serve` then overwrites it.
# What remains visible: the variable, to who may run `docker inspect` or enter the container, so prefer the file; and the
# key itself in Triton's memory, to root on the host.
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:26.11-py3

FROM ${TRITON_IMAGE} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY client client
COPY export export
COPY server server
COPY gateway gateway
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m pip install --constraint constraints.txt --target /opt/car-analyzer '.[sign]'

FROM ${TRITON_IMAGE} AS triton
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="car-analyzer Triton" \
      org.opencontainers.image.description="NVIDIA Triton for the car_analyzer ensemble, kept running by car-analyzer serve" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# All that is added to Triton's own Python.
RUN --mount=type=bind,source=constraints.txt,target=/tmp/constraints.txt \
    --mount=type=cache,target=/root/.cache/pip \
    PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --constraint /tmp/constraints.txt \
    pillow pillow-heif "cykooz-resizer; platform_machine == 'x86_64'"
# Of `engine_cache`: a volume that is mounted here belongs to the user, too.
RUN install --directory --owner=1000 --group=1000 /var/cache/car-analyzer
COPY --from=build /opt/car-analyzer /opt/car-analyzer
COPY deploy/docker/car-analyzer deploy/docker/healthcheck.py /usr/local/bin/
# What wants a home, or a cache as CUDA does, finds the one place that stays writable when the root is read-only.
ENV HOME=/tmp \
    PYTHONUNBUFFERED=1
WORKDIR /tmp
EXPOSE 8000 8001 8002
# In NVIDIA's image, its user `triton-server`.
USER 1000:1000
HEALTHCHECK --interval=10s --timeout=10s --start-period=300s --retries=6 \
    CMD ["healthcheck.py", "http://127.0.0.1:8000/v2/models/car_analyzer/ready"]
# NVIDIA's entrypoint, which fits CUDA to the driver, stays in front of it.
CMD ["car-analyzer", "serve", "--repository", "/models", "--host", "0.0.0.0"]

# With what decodes JPEGs on a GPU, for models that were exported with --preprocess dali.
FROM triton AS triton-gpu
USER 0:0
RUN --mount=type=bind,source=constraints.txt,target=/tmp/constraints.txt \
    --mount=type=cache,target=/root/.cache/pip \
    PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --constraint /tmp/constraints.txt nvidia-dali-cuda130
USER 1000:1000
