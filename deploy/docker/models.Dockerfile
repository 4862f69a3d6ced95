# Models as an image: one thing to roll out and to roll back. The context is the model repository.
ARG BASE=car-analyzer/triton:0.2.0

# For Kubernetes' image volumes: the models alone.
FROM scratch AS models
COPY . /

# hadolint ignore=DL3006 - the tag is in the argument
FROM ${BASE} AS with-models
COPY . /models
# The context of a checkout without an export has configurations only.
RUN ls /models/*/*/model.onnx > /dev/null \
    || { echo "There are no exported models in model_repository: run car-analyzer export first." >&2; exit 1; }
