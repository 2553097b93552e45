# syntax=docker/dockerfile:1
# For machines with an NVIDIA GPU: a driver for CUDA 13 and the NVIDIA Container Toolkit on the host.
#   docker build --build-arg UID="$(id -u)" --tag diffcut-bench .
#   docker run --rm --gpus all --volume "$PWD:/work" diffcut-bench run visualise=11
FROM nvidia/cuda:13.0.2-base-ubuntu24.04

# A C compiler is for `compile=true` of a backbone: torch.compile writes C.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1

# PyPI's torch brings its own CUDA libraries; of the base image it takes the check of the driver. Extras as in
# docs/installing.md. Of the checkout only the installed package stays.
ARG EXTRAS=all
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=bind,target=/source \
    python3 -m venv /opt/venv \
    && pip install --constraint /source/constraints.txt "/source[${EXTRAS}]"

# Files that a run writes are yours if UID is your number.
ARG UID=1000
RUN useradd --create-home --non-unique --uid "$UID" diffcut \
    && install --directory --owner=diffcut /work
USER $UID
WORKDIR /work
ENTRYPOINT ["diffcut-bench"]
CMD ["--help"]
