# CPU:  make image                 docker run --rm unsee demo
# CUDA: make image CUDA=1          docker run --rm --gpus all unsee:cuda doctor
# Versions are those of requirements/lock.txt and requirements/torch.txt. See docs/running.md.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
# A second index for builds of torch: those of PyPI for Linux are for CUDA, and some gigabytes larger.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 DEBIAN_FRONTEND=noninteractive
# hadolint ignore=DL3008
RUN command -v python3 >/dev/null || { apt-get update && apt-get install -y --no-install-recommends python3 python3-venv; }
RUN python3 -m venv /opt/unsee
WORKDIR /build
COPY requirements/lock.txt requirements/torch.txt requirements/
RUN /opt/unsee/bin/pip install --extra-index-url "${TORCH_INDEX}" -r requirements/torch.txt -c requirements/lock.txt
COPY pyproject.toml README.md LICENSE ./
RUN python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > needed.txt \
    && /opt/unsee/bin/pip install -r needed.txt -c requirements/lock.txt -c requirements/torch.txt
COPY src src
RUN PIP_CONSTRAINT=requirements/lock.txt /opt/unsee/bin/pip install --no-deps .

FROM ${BASE}
# hadolint ignore=DL3008
RUN command -v python3 >/dev/null || { apt-get update && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/*; }
RUN useradd --create-home --uid 10001 unsee && install -d -o unsee -g unsee /work
COPY --from=build /opt/unsee /opt/unsee
ENV PATH=/opt/unsee/bin:$PATH HF_HOME=/work/.cache/huggingface PYTHONUNBUFFERED=1
USER 10001
WORKDIR /work
ENTRYPOINT ["unsee"]
CMD ["--help"]
