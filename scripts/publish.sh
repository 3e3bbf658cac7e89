#!/usr/bin/env bash
# Publishes a film for ever, in real time, with the wall clock burned in twice:
#
#   as text      for people: local time with milliseconds
#   as bars      for programs: the top 1/20 of the picture is 20 equal fields, white = 1, black = 0, least significant
#                bit at the left; together they are Unix time in milliseconds modulo 2^20. Whoever reads them from the
#                screen and subtracts knows the true latency, if both run on one machine.
#
#   scripts/publish.sh URL [--clip NAME] [--size WxH] [--gop SECONDS] [--bitrate kbit/s] [--frame-number]
#                    [--leap SECONDS]
#
# --frame-number draws a second row of bars below the first: the number of the film's frame, counted from the start.
# --leap: after so many seconds all timestamps leap by 100 s, as they do when a broadcaster's clock is set.
# It becomes ffmpeg (exec), so the id of this process is the one to stop.
set -euo pipefail

SCRIPTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
FIELDS=20

clip=bbb720p30 size=1280x720 gop=2 bitrate=2500 frame_number= leap=
usage() { sed -n '2,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
[[ ${1:-} == *://* || ${1:-} == *.flv ]] || usage
url=$1
shift
while (($#)); do
    case $1 in
    --clip) clip=$2 ;;
    --size) size=$2 ;;
    --gop) gop=$2 ;;
    --bitrate) bitrate=$2 ;;
    --leap) leap=$2 ;;
    --frame-number) frame_number=yes; shift; continue ;;
    *) usage ;;
    esac
    shift 2
done

film=$("$SCRIPTS/media.sh" "$clip")

# bar_row TOP EXPRESSION: one row of bars showing an integer, `enable` switching each white field per frame.
bar_row() {
    local top=$1 number=$2 bit
    printf ',drawbox=y=%s:w=iw:h=ih/20:color=black:t=fill' "$top"
    for ((bit = 0; bit < FIELDS; bit++)); do
        printf ",drawbox=x=iw*%d/20:y=%s:w=iw/20:h=ih/20:color=white:t=fill:enable='mod(floor(%s/pow(2\,%d))\,2)'" \
            $bit "$top" "$number" $bit
    done
}

# Timestamps are shifted by the moment the filters started (RTCSTART), which makes a frame's time `t` the wall clock at
# which -re lets it through; after drawing they are shifted back. Stamping each frame with the clock at its arrival would
# put the scheduler's jitter into the stream.
filters="scale=${size/x/:},setpts=PTS+RTCSTART/1000000/TB$(bar_row 0 't*1000')"
[[ $frame_number ]] && filters+=$(bar_row ih/20 n)
filters+=",drawtext=x=h/40:y=h/9:fontsize=h/16:fontcolor=white:box=1:boxborderw=8:boxcolor=black@0.6"
filters+=":text='%{pts\:localtime\:0\:%H\\\\\:%M\\\\\:%S}.%{eif\:mod(floor(t*1000)\,1000)\:d\:3}'"
filters+=",setpts=PTS-STARTPTS"

audio=copy leaping=()
if [[ $leap ]]; then
    # ffmpeg 5.1 filters encoded packets in the timebase of FLV, milliseconds, but gives TB as the encoder's.
    # Copied audio would reach the filter with an end at every turn of the loop.
    audio=aac
    leaping=(-bsf:v "setts=ts=TS+gte(TS\\,$leap*1000)*100000" -bsf:a "setts=ts=TS+gte(TS*TB\\,$leap)*100/TB")
fi

# Keyframes by time, because the frame rate is the clip's: the fps filter would hold every frame back by one.
exec ffmpeg -nostdin -hide_banner -loglevel warning -re -stream_loop -1 -i "$film" -vf "$filters" \
    -c:v libx264 -preset superfast -tune zerolatency -profile:v high -pix_fmt yuv420p \
    -g 100000 -sc_threshold 0 -force_key_frames "expr:gte(t+0.001,n_forced*$gop)" \
    -b:v "${bitrate}k" -maxrate "$((bitrate * 6 / 5))k" -bufsize "${bitrate}k" \
    -c:a "$audio" "${leaping[@]}" -flush_packets 1 -f flv "$url"
