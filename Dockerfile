# retriever with its default encoder, for a machine without anything else:
#   docker build -t retriever .
#   docker run -v ./indexes:/indexes -p 127.0.0.1:8000:8000 -e RETRIEVER_READ_KEYS=... retriever
FROM python:3.11-slim-bookworm AS build
WORKDIR /source
# hadolint ignore=DL3042
RUN python -m venv /opt/retriever && /opt/retriever/bin/pip install --no-cache-dir pip==25.3
COPY constraints.txt .
# An index of CPU builds: on Linux, PyPI's torch brings several GB of CUDA libraries.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN torch="$(sed -n '/^torch==/p' constraints.txt)" \
    && /opt/retriever/bin/pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" "$torch"
COPY . .
RUN /opt/retriever/bin/pip install --no-cache-dir -c constraints.txt '.[serve]'

FROM python:3.11-slim-bookworm
# OpenMP for FAISS and torch; nothing else of the system is used, Java comes with the package.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1=12.* && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home retriever && mkdir /indexes && chown retriever /indexes
COPY --from=build /opt/retriever /opt/retriever
ENV PATH=/opt/retriever/bin:$PATH PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
USER 10001
# Compiles what later starts load, and shows that the image works.
RUN retriever doctor && printf '{"id": "d1", "text": "It works."}\n' > /tmp/corpus.jsonl \
    && retriever index /tmp/corpus.jsonl --index /tmp/index -q \
    && retriever search /tmp/index "does it work" && rm -r /tmp/index /tmp/corpus.jsonl
VOLUME /indexes
EXPOSE 8000
# The first start reads the encoder and starts Java.
HEALTHCHECK --interval=10s --timeout=3s --start-period=90s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
ENTRYPOINT ["retriever"]
CMD ["serve", "/indexes/my-index", "--host", "0.0.0.0"]
