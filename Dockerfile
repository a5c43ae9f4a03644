# One image for all processes. The command selects the process: `bioscope PROCESS`.
FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements/production.txt requirements/
RUN python -m venv /opt/bioscope && /opt/bioscope/bin/pip install --no-cache-dir --require-hashes -r requirements/production.txt
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY domain domain
COPY application application
COPY infrastructure infrastructure
COPY projections projections
COPY api api
COPY models models
COPY examples/micrographs examples/micrographs
RUN python -m venv /tmp/build && /tmp/build/bin/pip install --no-cache-dir hatchling==1.33.0 build==1.3.0 \
 && /tmp/build/bin/python -m build --wheel --no-isolation --outdir /tmp/dist . \
 && /opt/bioscope/bin/pip install --no-cache-dir --no-deps /tmp/dist/*.whl

FROM python:3.11-slim
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/bioscope bioscope
COPY --from=build /opt/bioscope /opt/bioscope
ENV PATH=/opt/bioscope/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 BIOSCOPE_ENVIRONMENT=production BIOSCOPE_LOG_JSON=true
USER 10001
WORKDIR /var/lib/bioscope
ENTRYPOINT ["bioscope"]
CMD ["--help"]
