# For scripts/compose in place of the published haproxy image where that can't be pulled: Debian's HAProxy, 2.6, which reads
# deploy/compose/haproxy.cfg as well.
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends haproxy && rm -rf /var/lib/apt/lists/*
USER haproxy
STOPSIGNAL SIGUSR1
CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
