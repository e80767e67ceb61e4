# Debian's HAProxy 2.6, which also reads deploy/compose/haproxy.cfg. scripts/compose builds it where the published haproxy image cannot
# be pulled.
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends haproxy && rm -rf /var/lib/apt/lists/*
USER haproxy
STOPSIGNAL SIGUSR1
CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
