#!/bin/sh
# Builds the last stage of the Dockerfile and runs it: gateway and services as containers, locked down, on a real NATS.
# `sh tests/image/run.sh [--quick]`
#
# The first stage is not run here, because it pulls its base image: the binary is made on this machine by the flags that
# the Dockerfile sets. `--quick` leaves link-time optimisation out, which takes minutes; its binary is larger. Needs
# buildah, podman and curl; where they are missing this says so and ends well.
set -eu

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
cd "$ROOT"
for TOOL in buildah podman curl; do
  command -v "$TOOL" >/dev/null 2>&1 || { echo "NOT RUN: the image's tests, because there is no $TOOL" >&2; exit 0; }
done
sh tests/support/fetch-nats-server.sh >/dev/null
SERVER=${TIDEGATE_TEST_NATS_SERVER:-$ROOT/target/tools/nats-server}
IMAGE=localhost/tidegate-image-test
WORK=$(mktemp -d "$ROOT/target/image-test.XXXXXX")
NAMES="$(basename "$WORK")"
NATS=

end() {
  podman rm -f -t 0 "$NAMES-gateway" "$NAMES-services" >/dev/null 2>&1 || true
  [ -z "$NATS" ] || kill "$NATS" 2>/dev/null || true
  rm -rf "$WORK"
}
trap end EXIT
fail() { echo "FAILED: $1" >&2; exit 1; }
is() { # what, found, wanted
  [ "$2" = "$3" ] || fail "$1 is \`$2\`, not \`$3\`"
}
eventually() { # what, command…
  WHAT=$1; shift
  TRIES=0
  until "$@" >/dev/null 2>&1; do
    TRIES=$((TRIES + 1))
    [ "$TRIES" -lt 300 ] || fail "$WHAT: not so after 30 s"
    sleep 0.1
  done
}

# Can podman run anything here? A static program that is not ours says so.
mkdir "$WORK/probe" && cp "$SERVER" "$WORK/probe/nats-server"
printf 'FROM scratch\nCOPY nats-server /nats-server\nENTRYPOINT ["/nats-server"]\n' >"$WORK/probe/Dockerfile"
buildah build -q -t localhost/tidegate-probe "$WORK/probe" >/dev/null
if ! podman run --rm localhost/tidegate-probe --version >/dev/null 2>&1; then
  export CONTAINERS_CONF="$ROOT/tests/image/containers.conf"
  podman run --rm localhost/tidegate-probe --version >"$WORK/probe.log" 2>&1 || {
    tail -n 3 "$WORK/probe.log" >&2
    echo "NOT RUN: the image's tests, because podman starts no container here (see the lines above)" >&2
    exit 0
  }
fi

# The binary, by the Dockerfile's own flags.
TARGET=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS=$(sed -n 's/^ENV RUSTFLAGS="\(.*\)"$/\1/p' Dockerfile)
CARGO_PROFILE_RELEASE_STRIP=$(sed -n 's/^ENV CARGO_PROFILE_RELEASE_STRIP=//p' Dockerfile)
WHOLE_PROGRAM=$(sed -n 's/^ENV WHOLE_PROGRAM="\(.*\)"$/\1/p' Dockerfile)
AWS_LC_SYS_CFLAGS=$(sed -n 's/^ENV AWS_LC_SYS_CFLAGS="\(.*\)"$/\1/p' Dockerfile)
for FLAGS in "$RUSTFLAGS" "$CARGO_PROFILE_RELEASE_STRIP" "$WHOLE_PROGRAM" "$AWS_LC_SYS_CFLAGS"; do
  [ -n "$FLAGS" ] || fail "the Dockerfile does not set the flags any more that are looked for here"
done
export RUSTFLAGS CARGO_PROFILE_RELEASE_STRIP AWS_LC_SYS_CFLAGS
# What a node pulls (compressed, as registries keep it) and what it then has.
PULLED_MAX=$((20 * 1000 * 1000))
SIZE_MAX=$((28 * 1000 * 1000))
if [ "${1:-}" = --quick ]; then
  SIZE_MAX=$((40 * 1000 * 1000))
  export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
fi
# Several flags, so not in quotes.
# shellcheck disable=SC2086
CARGO_PROFILE_RELEASE_DEBUG=false cargo rustc --quiet --release --locked --bin tidegate --target "$TARGET" \
  --target-dir target/image -- $WHOLE_PROGRAM
mkdir -p "$WORK/build/out" "$WORK/build/etc/ssl/certs"
cp "target/image/$TARGET/release/tidegate" "$WORK/build/out/tidegate"
cp /etc/ssl/certs/ca-certificates.crt "$WORK/build/etc/ssl/certs/" 2>/dev/null || : >"$WORK/build/etc/ssl/certs/ca-certificates.crt"

# The last stage as it stands in the Dockerfile, with what the first would have made.
sed -n '/^FROM scratch$/,$p' Dockerfile | sed 's/^COPY --from=build /COPY /' >"$WORK/build/Dockerfile"
buildah build -q -t "$IMAGE" --build-arg VERSION=1.2.3 --build-arg REVISION=abc "$WORK/build" >/dev/null
inspect() { podman image inspect --format "$1" "$IMAGE"; }
SIZE=$(inspect '{{.Size}}')
[ "$SIZE" -lt "$SIZE_MAX" ] || fail "the image has $SIZE bytes, more than $SIZE_MAX"
buildah push -q --compression-format gzip "$IMAGE" "dir:$WORK/pushed" >/dev/null
PULLED=$(cat "$WORK/pushed"/* | wc -c)
[ "$PULLED" -lt "$PULLED_MAX" ] || fail "the image has $PULLED bytes to pull, more than $PULLED_MAX"
is "its user" "$(inspect '{{.Config.User}}')" 65532:65532
is "its entry" "$(inspect '{{join .Config.Entrypoint " "}} {{join .Config.Cmd " "}}')" "/tidegate serve"
is "its version" "$(inspect '{{index .Config.Labels "org.opencontainers.image.version"}}')" 1.2.3
is "its revision" "$(inspect '{{index .Config.Labels "org.opencontainers.image.revision"}}')" abc
is "its licence" "$(inspect '{{index .Config.Labels "org.opencontainers.image.licenses"}}')" Apache-2.0

# A NATS of this test, and both kinds of process in containers: read-only, no rights, names resolved by static glibc.
"$SERVER" -a 127.0.0.1 -p -1 -js -sd "$WORK/js" --ports_file_dir "$WORK" >/dev/null 2>&1 &
NATS=$!
eventually "nats-server listens" sh -c "ls '$WORK'/*.ports"
PORT=$(sed -n 's/.*nats:\/\/127.0.0.1:\([0-9]*\).*/\1/p' "$WORK"/*.ports | head -n 1)
locked() { # options of podman run, image, arguments…
  podman run --network host --add-host nats.test:127.0.0.1 --read-only --cap-drop=all --memory 256m \
    --security-opt=no-new-privileges -e TIDEGATE_LISTEN=127.0.0.1:0 -e TIDEGATE_ADMIN=127.0.0.1:0 \
    -e TIDEGATE_PROVISION=never -e NATS_URL="nats://nats.test:$PORT" "$@"
}
container() { # name, arguments…
  NAME="$NAMES-$1"; shift
  locked -d --name "$NAME" "$IMAGE" "$@" >/dev/null
}
address() { # name, field: from the log line that names it
  podman logs "$NAMES-$1" 2>&1 | grep -o "\"$2\":\"[^\"]*" | grep -o '127.0.0.1:[0-9]*' | head -n 1
}
has_address() { [ -n "$(address "$@")" ]; }
container gateway
eventually "the gateway says where it is" has_address gateway listen
eventually "the gateway is ready" curl -fs "http://$(address gateway admin)/readyz"
locked --rm "$IMAGE" streams apply >"$WORK/streams.log" 2>&1 || { cat "$WORK/streams.log" >&2; fail "streams apply"; }
container services worker quest-system
eventually "the services say where they are" has_address services admin
eventually "the services are ready" curl -fs "http://$(address services admin)/readyz"
QUEST=$(curl -fs "http://$(address gateway listen)/v1/players/p1/quests:generate" --json '{"seed": "42"}')
case "$QUEST" in
  *qst_ebd72078c3abbb3f*) ;;
  *) fail "the quest is $QUEST" ;;
esac
for NAME in gateway services; do
  podman stop -t 30 "$NAMES-$NAME" >/dev/null
  is "exit code of $NAME" "$(podman inspect --format '{{.State.ExitCode}}' "$NAMES-$NAME")" 0
done
echo "image: ok, $PULLED bytes to pull, $SIZE bytes unpacked"
