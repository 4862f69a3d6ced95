# docker buildx bake               the four images
# docker buildx bake triton-with-models        Triton with model_repository/ in it (triton-gpu-with-models: and DALI; triton-cpu-with-models: without a GPU)
# REGISTRY=registry.example/cars/ TAG=1.2.0 ATTEST=1 docker buildx bake --push     with SBOM and provenance

variable "REGISTRY" { default = "car-analyzer/" }
variable "TAG" { default = "0.2.0" }
variable "REVISION" { default = "unknown" }
variable "TRITON_IMAGE" { default = "nvcr.io/nvidia/tritonserver:26.11-py3" }
variable "PYTHON_IMAGE" { default = "python:3.12.12-slim-bookworm" }
variable "TORCH_INDEX" { default = "https://download.pytorch.org/whl/cpu" }
# Docker's own driver has no attestations; `docker buildx create --use` makes a builder that has.
variable "ATTEST" { default = "" }

group "default" {
  targets = ["triton", "triton-cpu", "gateway", "export"]
}

target "_common" {
  context   = "."
  platforms = ["linux/amd64"]
  attest    = ATTEST == "" ? [] : ["type=sbom", "type=provenance,mode=max"]
  args = {
    VERSION  = TAG
    REVISION = REVISION
  }
}

target "triton" {
  inherits   = ["_common"]
  dockerfile = "deploy/docker/triton.Dockerfile"
  target     = "triton"
  tags       = ["${REGISTRY}triton:${TAG}"]
  args       = { TRITON_IMAGE = TRITON_IMAGE }
}

# With DALI, for models that were exported with --preprocess dali.
target "triton-gpu" {
  inherits = ["triton"]
  target   = "triton-gpu"
  tags     = ["${REGISTRY}triton-gpu:${TAG}"]
}

target "_python" {
  inherits   = ["_common"]
  dockerfile = "deploy/docker/python.Dockerfile"
  args       = { PYTHON_IMAGE = PYTHON_IMAGE }
}

target "triton-cpu" {
  inherits = ["_python"]
  target   = "triton-cpu"
  tags     = ["${REGISTRY}triton-cpu:${TAG}"]
}

target "gateway" {
  inherits = ["_python"]
  target   = "gateway"
  tags     = ["${REGISTRY}gateway:${TAG}"]
}

target "export" {
  inherits = ["_python"]
  target   = "export"
  tags     = ["${REGISTRY}export:${TAG}"]
  args     = { TORCH_INDEX = TORCH_INDEX }
}

# For image volumes of Kubernetes.
target "models" {
  inherits   = ["_common"]
  context    = "model_repository"
  dockerfile = "../deploy/docker/models.Dockerfile"
  target     = "models"
  tags       = ["${REGISTRY}models:${TAG}"]
}

target "_with_models" {
  inherits   = ["_common"]
  context    = "model_repository"
  dockerfile = "../deploy/docker/models.Dockerfile"
  target     = "with-models"
  args       = { BASE = "base" }
}

target "triton-with-models" {
  inherits = ["_with_models"]
  contexts = { base = "target:triton" }
  tags     = ["${REGISTRY}triton-with-models:${TAG}"]
}

target "triton-gpu-with-models" {
  inherits = ["_with_models"]
  contexts = { base = "target:triton-gpu" }
  tags     = ["${REGISTRY}triton-gpu-with-models:${TAG}"]
}

target "triton-cpu-with-models" {
  inherits = ["_with_models"]
  contexts = { base = "target:triton-cpu" }
  tags     = ["${REGISTRY}triton-cpu-with-models:${TAG}"]
}
