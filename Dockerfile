# The exchange in a container: docker build -t exchange .
#
# Only /data (the journal) and /tmp are written: run it with --read-only.
# It serves on all addresses, so it wants a key file, which belongs to user
# 10001 and has mode 0600, or EXCHANGE_SERVER_OPEN=1:
#
#   docker run --read-only --tmpfs /tmp -v journal:/data -v keys:/keys:ro \
#       -e EXCHANGE_SERVER_KEYS=/keys/keys.json -p 8765:8765 exchange
#
# Its page may be opened by an address or localhost on any port (-p 9000:8765).
# A name is not known in here: -e EXCHANGE_SERVER_ORIGINS=http://lab7:9000

FROM python:3.13-slim AS build
RUN pip install --no-cache-dir "poetry>=2.1,<3" "poetry-plugin-export>=1.9,<2"
WORKDIR /build
COPY pyproject.toml poetry.lock ./
RUN poetry export --only main,server,cluster --output requirements.txt
# What poetry.lock lists, each checked against its digest; pip stays behind.
RUN python -m venv --without-pip /app/.venv \
    && pip --python /app/.venv install --no-cache-dir --no-deps \
        --only-binary :all: --require-hashes --requirement requirements.txt
COPY server.py client.py orderbook.py /app/
COPY exchange /app/exchange
COPY util /app/util
# Where nothing can be written, nothing is compiled at the start either.
RUN /app/.venv/bin/python -m compileall -q -x /app/.venv /app

FROM python:3.13-slim
COPY --from=build /app /app
RUN install -d -m 0700 -o 10001 -g 10001 /data
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH \
    EXCHANGE_SERVER_HOSTNAME=0.0.0.0 \
    EXCHANGE_SERVER_PORT=8765 \
    EXCHANGE_SERVER_JOURNAL=/data/exchange.db \
    EXCHANGE_SERVER_DEBUG=0 \
    EXCHANGE_SERVER_LOG=json
VOLUME /data
EXPOSE 8765
# A number, so that Kubernetes sees that it is not root.
USER 10001:10001
# http.client, unlike urllib.request, asks no proxy.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=6 \
    CMD ["python", "-c", "\
import http.client, os, ssl; \
host, port = 'localhost', int(os.environ['EXCHANGE_SERVER_PORT']); \
connection = http.client.HTTPSConnection( \
    host, port, timeout=4, context=ssl._create_unverified_context() \
) if os.environ.get('EXCHANGE_SERVER_TLS_CERT') \
else http.client.HTTPConnection(host, port, timeout=4); \
connection.request('GET', '/healthz'); \
raise SystemExit(connection.getresponse().status != 200)"]
CMD ["python", "server.py"]
