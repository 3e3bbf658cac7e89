#!/usr/bin/env bash
# What `make demo-cluster` runs once everything is built: three servers of NATS, a node that takes publishers, two origins, two nodes
# that encode, two edges, and a film that goes on when the origin it is read from is killed, or the node that encodes it. Everything is
# on this machine, on ports of its own. Ctrl-C ends it.
#
#   scripts/demo-cluster.sh [PATH TO tidecast]
set -euo pipefail

SCRIPTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$SCRIPTS")
TIDECAST=${1:-$ROOT/target/release/tidecast}
NATS=$ROOT/target/tools/nats/bin/nats-server
HOME_DIR=$ROOT/target/demo-cluster
STREAM=live/demo
export TIDECAST__AUTH__PUBLISH_KEY=demo-cluster-demo-cluster

say() { echo "demo-cluster: $*"; }
die() { echo "demo-cluster: $*" >&2; exit 1; }

[[ -x $TIDECAST ]] || die "$TIDECAST is not there; run 'make demo-cluster'"
[[ -x $NATS ]] || die "$NATS is not there; run 'make demo-cluster'"

declare -A pids=()
stop_all() {
    trap '' INT TERM HUP
    say "stopping"
    ((${#pids[@]})) && kill -TERM "${pids[@]}" 2>/dev/null
    wait
}
trap stop_all EXIT
trap 'exit 0' INT TERM HUP

# start NAME COMMAND...: in a session of its own, so that the terminal's Ctrl-C reaches this script alone.
start() {
    local name=$1
    shift
    setsid "$@" >"$HOME_DIR/$name.log" 2>&1 </dev/null &
    pids[$name]=$!
}

# Node NUMBER listens on 18NUMBER80 for viewers, and so on.
port() { echo "127.0.0.1:18$1$2"; }

for taken in "$(port 0 90)" 127.0.0.1:18711; do
    ! (exec 3<>"/dev/tcp/${taken/://}") 2>/dev/null || die "$taken is in use: does another demo-cluster run?"
done
rm -rf "$HOME_DIR"
mkdir -p "$HOME_DIR/authority"
"$SCRIPTS/media.sh" bbb720p30 >/dev/null

routes=nats://127.0.0.1:18721,nats://127.0.0.1:18722,nats://127.0.0.1:18723
servers=nats://127.0.0.1:18711,nats://127.0.0.1:18712,nats://127.0.0.1:18713
for number in 1 2 3; do
    start "nats$number" "$NATS" --name "nats$number" --addr 127.0.0.1 --port "1871$number" --jetstream \
        --store_dir "$HOME_DIR/nats$number" --cluster_name demo --cluster "nats://127.0.0.1:1872$number" --routes "$routes"
done

export TIDECAST__CLUSTER__NATS=$servers TIDECAST__CLUSTER__NATS_REPLICAS=3 TIDECAST__PLAYER__PREFER=hls
TIDECAST__DATA_DIR=$HOME_DIR/authority "$TIDECAST" cluster init authority 2>/dev/null
number=0
for name in ingest1 origin1 edge1 edge2 worker1 worker2 origin2; do
    case $name in
        ingest*) roles=ingest ;;
        origin*) roles=origin ;;
        edge*) roles=edge ;;
        worker*) roles=transcode ;;
    esac
    mkdir "$HOME_DIR/$name"
    TIDECAST__DATA_DIR=$HOME_DIR/authority "$TIDECAST" cluster invite "$name" 2>/dev/null |
        TIDECAST__DATA_DIR=$HOME_DIR/$name "$TIDECAST" cluster join - 2>/dev/null
    start "$name" env TIDECAST__DATA_DIR="$HOME_DIR/$name" TIDECAST__ROLES=$roles \
        TIDECAST__HTTP__LISTEN="$(port $number 80)" TIDECAST__RTMP__LISTEN="$(port $number 35)" \
        TIDECAST__WEBRTC__LISTEN="$(port $number 89)" TIDECAST__ADMIN__LISTEN="$(port $number 90)" \
        TIDECAST__RELAY__LISTEN="$(port $number 74)" "$TIDECAST"
    number=$((number + 1))
done

# The one node below that nobody is told to kill.
ask() { TIDECAST__ADMIN__LISTEN=$(port 0 90) "$TIDECAST" "$@"; }
# As ingest1 has heard: seven nodes, two of which have tried their encoders and lend them.
are_there() {
    local nodes
    nodes=$(ask nodes --json 2>/dev/null) && (($(wc -l <<<"$nodes") >= 7)) &&
        (($(grep -cE '"encode_free":(0\.[0-9]*[1-9]|[1-9])' <<<"$nodes") >= 2))
}
for ((tenth = 0; tenth < 600; tenth++)); do
    are_there && break
    sleep 0.1
done
are_there || die "the nodes do not find each other; their logs are in ${HOME_DIR#"$ROOT"/}"

# As an encoder that connects again when its node is gone.
publish() {
    trap 'kill $! 2>/dev/null; exit 0' TERM
    while true; do
        "$SCRIPTS/publish.sh" "rtmp://$(port 0 35)/$STREAM?key=$TIDECAST__AUTH__PUBLISH_KEY" &
        wait $! || true
        sleep 0.2
    done
}
export -f publish port
export SCRIPTS STREAM
start publisher bash -c publish

ask nodes
cat <<WORDS

  watch at either edge      http://$(port 2 80)/watch/$STREAM
                            http://$(port 3 80)/watch/$STREAM
  where a viewer is best    http://$(port 0 80)/where/$STREAM
  the operators' page       http://$(port 0 90)/      nodes, streams and their way, events
  the same in a terminal    TIDECAST__ADMIN__LISTEN=$(port 0 90) $TIDECAST events --follow
                            (or nodes, streams, top, explain $STREAM)
  kill one of its origins   kill -9 ${pids[origin1]}      or ${pids[origin2]}, and go on watching
  or one that encodes it    kill -9 ${pids[worker1]}      or ${pids[worker2]}, whichever is busy
  or the edge you watch at  kill -9 ${pids[edge1]}      or ${pids[edge2]}
  the logs                  ${HOME_DIR#"$ROOT"/}/*.log

Ctrl-C ends it.
WORDS
# In the background, so that the traps above run while it does.
TIDECAST__ADMIN__LISTEN=$(port 0 90) "$TIDECAST" events --follow &
pids[events]=$!
wait "${pids[events]}"
