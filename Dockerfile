# Two targets: `cpu` runs every role and ONNX models; `cuda` adds torch and diffusers for workers with an NVIDIA GPU.

FROM python:3.11-slim-trixie AS build
WORKDIR /build
RUN python -m venv /opt/sfumato
ENV PATH=/opt/sfumato/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY deploy/nginx.conf deploy/
COPY src src
RUN pip install --constraint constraints.txt '.[kafka,postgres,valkey,otel]'

FROM build AS build-cuda
RUN pip install --constraint constraints.txt '.[kafka,postgres,valkey,otel,diffusers]'

FROM python:3.11-slim-trixie AS cpu
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin sfumato
COPY --from=build /opt/sfumato /opt/sfumato
ENV PATH=/opt/sfumato/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["sfumato"]

FROM cpu AS cuda
COPY --from=build-cuda /opt/sfumato /opt/sfumato
