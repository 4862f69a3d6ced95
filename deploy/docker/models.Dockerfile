# A Triton image with models in it: one thing to roll out and to roll back. The context is the model repository.
ARG BASE=car-analyzer/triton:0.2.0
# hadolint ignore=DL3006 - the tag is in the argument
FROM ${BASE}
COPY . /models
