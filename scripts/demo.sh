#!/usr/bin/env bash
# What `make demo` runs once everything is built: a server, a film published into it, and the words to go on from there.
# Ctrl-C stops both and nothing else.
#
#   scripts/demo.sh [PATH TO tidecast]
set -euo pipefail

SCRIPTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$SCRIPTS")
TIDECAST=${1:-$ROOT/target/release/tidecast}
LOG=$ROOT/target/demo.log
STREAM=live/demo

# The defaults, unless the environment moves them (it moves the server in the same way).
RTMP_PORT=${TIDECAST__RTMP__LISTEN:-:1935}; RTMP_PORT=${RTMP_PORT##*:}
HTTP_PORT=${TIDECAST__HTTP__LISTEN:-:8080}; HTTP_PORT=${HTTP_PORT##*:}
ADMIN_PORT=${TIDECAST__ADMIN__LISTEN:-:9090}; ADMIN_PORT=${ADMIN_PORT##*:}

say() { echo "demo: $*"; }
die() { echo "demo: $*" >&2; exit 1; }

server_pid='' publisher_pid=''

# is_running PID, for children of this shell, which waits for those that have ended by itself.
is_running() { [[ $1 ]] && kill -0 "$1" 2>/dev/null; }

# stop NAME PID: asks, waits up to 10 s, then kills.
stop() {
    local name=$1 pid=$2 tenth
    is_running "$pid" || return 0
    kill -TERM "$pid" 2>/dev/null || return 0
    for ((tenth = 0; tenth < 100; tenth++)); do
        is_running "$pid" || break
        sleep 0.1
    done
    if is_running "$pid"; then
        say "$name did not stop; killing it"
        kill -KILL "$pid" 2>/dev/null || true
    fi
}

stop_all() {
    trap '' INT TERM HUP
    stop publisher "$publisher_pid"
    stop tidecast "$server_pid"
}
trap stop_all EXIT
trap 'echo; say "stopping"; exit 0' INT TERM HUP

port_is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
is_ready() {
    local status
    exec 3<>"/dev/tcp/127.0.0.1/$ADMIN_PORT" || return 1
    printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
    read -r status <&3 || status=
    exec 3>&-
    [[ $status == *" 200"* ]]
} 2>/dev/null

[[ -x $TIDECAST ]] || die "$TIDECAST is not there; run 'make demo'"
for port in "$RTMP_PORT" "$HTTP_PORT" "$ADMIN_PORT"; do
    ! port_is_taken "$port" || die "port $port is in use by another program: stop it, or move this server with" \
        "TIDECAST__RTMP__LISTEN, TIDECAST__HTTP__LISTEN, TIDECAST__ADMIN__LISTEN (for example 127.0.0.1:8081)"
done
"$SCRIPTS/media.sh" bbb720p30 >/dev/null

# setsid: the terminal's Ctrl-C must reach this script alone. A server that got it twice would take the second as "now".
mkdir -p "$(dirname "$LOG")"
say "starting tidecast (log: ${LOG#"$ROOT"/})"
setsid "$TIDECAST" >"$LOG" 2>&1 </dev/null &
server_pid=$!
for ((tenth = 0; tenth < 100; tenth++)); do
    is_ready && break
    is_running "$server_pid" || { cat "$LOG" >&2; die "tidecast did not start"; }
    sleep 0.1
done
is_ready || { cat "$LOG" >&2; die "tidecast is not ready after 10 s"; }

key=$("$TIDECAST" keys show)
setsid "$SCRIPTS/publish.sh" "rtmp://127.0.0.1:$RTMP_PORT/$STREAM?key=$key" </dev/null 2>>"$LOG" &
publisher_pid=$!

cat <<END

  Watch      http://localhost:$HTTP_PORT/watch/$STREAM
  All        http://localhost:$HTTP_PORT/

  From OBS   Settings > Stream > Service: Custom
    Server       rtmp://localhost:$RTMP_PORT/live
    Stream Key   obs?key=$key
    and watch    http://localhost:$HTTP_PORT/watch/live/obs

  The clock in the picture is this machine's, when the frame was made: the difference to yours is the latency.
  Ctrl-C stops everything.

END

# Whichever ends first ends the demo, and says so.
status=0
wait -n -p ended "$server_pid" "$publisher_pid" || status=$?
if [[ $ended == "$server_pid" ]]; then
    name=tidecast
else
    name="the publisher (ffmpeg)"
fi
tail -n 20 "$LOG" >&2
die "$name ended by itself (status $status); the lines above are the end of ${LOG#"$ROOT"/}"
