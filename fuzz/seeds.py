#!/usr/bin/env python3
"""Makes fuzz/seeds/ anew: small, honest inputs of every target, from which libFuzzer starts its search.

Media and codec configurations come out of ffmpeg (FFMPEG, else the one that scripts/setup.sh test installs: Debian's
cannot write Enhanced RTMP); what ffmpeg does not write is put together here, as the unit tests do it. Run it when a
target's input changes its shape; encoders differ in detail from version to version, so other bytes are no fault.
"""

import hashlib
import hmac
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
SEEDS = ROOT / "fuzz" / "seeds"
# Of one seed: the shorter they are, the more of them a second tries.
BYTES_MAX = 4096

VIDEO, AUDIO, DATA, COMMAND, AGGREGATE = 9, 8, 18, 20, 22


def seed(target, name, data):
    assert len(data) <= BYTES_MAX, f"{target}/{name} has {len(data)} bytes"
    folder = SEEDS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


# --- media -----------------------------------------------------------------------------------------------------------

PICTURE = ["-f", "lavfi", "-i", "testsrc=size=64x64:rate=10:duration=0.6"]
SOUND = ["-f", "lavfi", "-i", "sine=duration=0.6:sample_rate=48000"]
CLIPS = {
    "h264": PICTURE + ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "40", "-pix_fmt", "yuv420p"],
    "h264-high10": PICTURE + ["-c:v", "libx264", "-profile:v", "high10", "-crf", "40", "-pix_fmt", "yuv420p10"],
    "h264-b": PICTURE + ["-c:v", "libx264", "-bf", "2", "-crf", "40", "-pix_fmt", "yuv420p", "-colorspace", "bt709"],
    "hevc": PICTURE + ["-c:v", "libx265", "-x265-params", "log-level=none", "-crf", "40", "-pix_fmt", "yuv420p"],
    "hevc-main10": PICTURE + ["-c:v", "libx265", "-x265-params", "log-level=none", "-crf", "40",
                              "-pix_fmt", "yuv420p10", "-color_primaries", "bt2020"],
    "av1": PICTURE + ["-c:v", "libsvtav1", "-preset", "12", "-crf", "55", "-pix_fmt", "yuv420p"],
    "aac": SOUND + ["-c:a", "aac", "-b:a", "32k"],
    "aac-surround": SOUND + ["-c:a", "aac", "-ac", "6", "-b:a", "64k"],
    "opus": SOUND + ["-c:a", "libopus", "-b:a", "16k"],
    "opus-surround": SOUND + ["-c:a", "libopus", "-ac", "6", "-b:a", "48k"],
}


def flv_tags(arguments):
    """The tags of a clip: (type, stamp, body)."""
    command = [FFMPEG, "-nostdin", "-loglevel", "error", *arguments, "-f", "flv", "-"]
    data = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ | {"SVT_LOG": "0"}).stdout
    tags, at = [], 13
    while at < len(data):
        kind, size = data[at], int.from_bytes(data[at + 1:at + 4])
        stamp = int.from_bytes(data[at + 4:at + 7]) | data[at + 7] << 24
        tags.append((kind, stamp, data[at + 11:at + 11 + size]))
        at += 11 + size + 4
    return tags


def bodies(tags, kind):
    """As many bodies as fit, each behind its length."""
    out = b""
    for body in (body for of, _, body in tags if of == kind):
        if len(out) + 2 + len(body) > BYTES_MAX:
            break
        out += struct.pack(">H", len(body)) + body
    return out


def record(body, is_video):
    """The codec configuration in a sequence header."""
    enhanced = body[0] & 0x80 if is_video else body[0] >> 4 == 9
    return body[5:] if enhanced or is_video else body[2:]


def media():
    for name, arguments in CLIPS.items():
        tags = flv_tags(arguments)
        is_video = "testsrc" in arguments[3]
        kind = VIDEO if is_video else AUDIO
        config = record(next(body for of, _, body in tags if of == kind), is_video)
        seed("flv_video" if is_video else "flv_audio", name, bodies(tags, kind))
        if name.startswith("h264"):
            seed("avcc", name, config)
            length = int.from_bytes(config[6:8])
            seed("h264_sps", name, config[8:8 + length])
        elif name.startswith("hevc"):
            seed("hvcc", name, config)
            seed("hevc_sps", name, hevc_sps(config))
        elif name == "av1":
            seed("av1c", name, config)
            # One OBU with a size of one byte.
            assert config[4] == 0x0A and config[5] < 0x80
            seed("av1_sequence", name, config[6:6 + config[5]])
        elif name.startswith("aac"):
            seed("aac_config", name, config)
        else:
            seed("opus_head", name, config)
            packets = [body[5:] for of, _, body in tags if of == AUDIO][1:3]
            for number, packet in enumerate(packets):
                seed("opus_packet", f"{name}-{number}", packet)
    # HE-AAC and HE-AAC v2, which ffmpeg's own encoder does not make: announced first, and behind.
    seed("aac_config", "he", bytes.fromhex("2b8a0800"))
    seed("aac_config", "he-v2", bytes.fromhex("eb8a0800"))
    seed("aac_config", "he-behind", bytes.fromhex("130856e598"))
    # Several tracks in one message, a modifier before a packet, and what is only told.
    tracks = b"\x96\x10hvc1" + b"".join(bytes([track]) + b"\0\0\x02\x01\x02" for track in (0, 1))
    modified = b"\x97\x02\0\0\x09\x01av01\x0a\x0b"
    told = b"\x94hvc1\x02\x00\x09colorInfo"
    joined = b"".join(struct.pack(">H", len(body)) + body for body in (tracks, modified, told))
    seed("flv_video", "multitrack", joined)
    tracks = b"\x95\x20" + b"".join(b"Opus" + bytes([track]) + b"\0\0\x02\xfc\x01" for track in (0, 1))
    seed("flv_audio", "multitrack", struct.pack(">H", len(tracks)) + tracks)


def hevc_sps(config):
    arrays, at = config[22], 23
    for _ in range(arrays):
        kind, count = config[at] & 0x3F, int.from_bytes(config[at + 1:at + 3])
        at += 3
        for _ in range(count):
            length = int.from_bytes(config[at:at + 2])
            if kind == 33:
                return config[at + 2:at + 2 + length]
            at += 2 + length
    sys.exit("no SPS in this hvcC")


# --- AMF -------------------------------------------------------------------------------------------------------------


def text(value):
    return struct.pack(">H", len(value)) + value.encode()


def amf0(value):
    if value is None:
        return b"\x05"
    if isinstance(value, bool):
        return bytes([1, value])
    if isinstance(value, (int, float)):
        return b"\0" + struct.pack(">d", value)
    if isinstance(value, str):
        return b"\x02" + text(value)
    if isinstance(value, list):
        return b"\x0a" + struct.pack(">I", len(value)) + b"".join(map(amf0, value))
    pairs = b"".join(text(name) + amf0(item) for name, item in value.items())
    return b"\x03" + pairs + b"\0\0\x09"


def ecma(pairs):
    return b"\x08" + struct.pack(">I", len(pairs)) + amf0(pairs)[1:]


CONNECT = b"".join(map(amf0, ["connect", 1, {
    "app": "live", "type": "nonprivate", "flashVer": "FMLE/3.0 (compatible; Lavf59.27.100)",
    "tcUrl": "rtmp://127.0.0.1/live", "fourCcList": ["av01", "hvc1"], "capsEx": 7, "objectEncoding": 0}]))
METADATA = amf0("@setDataFrame") + amf0("onMetaData") + ecma({
    "duration": 0, "width": 1280, "height": 720, "videodatarate": 2500.0, "framerate": 30, "videocodecid": 7,
    "audiodatarate": 128, "audiosamplerate": 48000, "stereo": True, "audiocodecid": "mp4a", "encoder": "Lavf"})


def command(*values):
    return b"".join(map(amf0, values))


PUBLISH = [
    CONNECT,
    command("releaseStream", 2, None, "x?key=k"),
    command("FCPublish", 3, None, "x?key=k"),
    command("createStream", 4, None),
    command("publish", 5, None, "x?key=k", "live"),
]

# Values of AMF3: an object with a string and a double, then again by number; arrays, a vector, a dictionary, bytes.
AMF3 = {
    "object": b"\x0a\x0b\x01\x19videocodecid\x04\x07\x0bwidth\x05@\x94\0\0\0\0\0\0\x01",
    "again": b"\x09\x07\x01\x0a\x13\x01\x03a\x06\x05xy\x0a\x01\x06\x02\x0a\x02",
    "array": b"\x09\x05\x03k\x03\x01\x04\x01\x06\x07abc",
    "vectors": b"\x09\x07\x01\x0d\x05\0\0\0\0\x01\xff\xff\xff\xff\x0f\x03\0@\x94\0\0\0\0\0\0\x10\x03\0\x01\x02",
    "dictionary": b"\x11\x03\0\x06\x03k\x04\x01",
    "date-xml-bytes": b"\x09\x07\x01\x08\x01Bm\x1a\x94\xa2\0\0\0\x0b\x07<a>\x0c\x05\x01\x02",
}


def amf():
    seed("amf0", "connect", CONNECT)
    seed("amf0", "metadata", METADATA)
    seed("amf0", "other", b"\x0b" + bytes(10) + b"\x0c\0\0\0\x02hi" + b"\x10" + text("C") + text("a") + b"\x06\0\0\x09")
    seed("amf0", "with-amf3", command("publish", 5) + b"\x11\x01\x11\x06\x0fx?key=k")
    for name, value in AMF3.items():
        seed("amf3", name, value)


# --- RTMP ------------------------------------------------------------------------------------------------------------


def flv_tag(kind, stamp, body):
    head = bytes([kind]) + struct.pack(">I", len(body))[1:] + struct.pack(">I", stamp)[1:] + bytes([stamp >> 24, 0, 0, 0])
    return head + body + struct.pack(">I", 11 + len(body))


def chunks(chunk_stream, kind, stream, stamp, body, size=128):
    """One message from a type 0 header on."""
    extended = struct.pack(">I", stamp) if stamp >= 0xFFFFFF else b""
    out = bytes([chunk_stream]) + struct.pack(">I", min(stamp, 0xFFFFFF))[1:]
    out += struct.pack(">I", len(body))[1:] + bytes([kind]) + struct.pack("<I", stream) + extended
    for at in range(0, max(len(body), 1), size):
        out += (bytes([0xC0 | chunk_stream]) + extended if at else b"") + body[at:at + size]
    return out


def signed(first):
    """A C1 with the digest of a Flash Player, in the first or the second block (ingest/src/rtmp/digest.rs)."""
    packet = bytearray((at * 31 + 7) % 256 for at in range(1536))
    block = 8 if first else 8 + 764
    place = block + 4 + sum(packet[block:block + 4]) % 728
    rest = bytes(packet[:place] + packet[place + 32:])
    packet[place:place + 32] = hmac.new(b"Genuine Adobe Flash Player 001", rest, hashlib.sha256).digest()
    return bytes(packet)


def rtmp():
    c2 = bytes(1536)
    seed("rtmp_handshake", "plain", b"\xff\x03" + bytes(1536) + c2 + b"\x02\0\0\0")
    seed("rtmp_handshake", "signed-first", b"\x10\x03" + signed(True) + c2)
    seed("rtmp_handshake", "signed-second", b"\x10\x03" + signed(False) + c2)
    seed("rtmp_handshake", "http", b"\xffGET / HTTP/1.1\r\n\r\n")

    opening = b"".join(chunks(3, COMMAND, 1 if number == 4 else 0, 0, body) for number, body in enumerate(PUBLISH))
    config = bytes.fromhex("170000000001640015ffe1001967640015acd94141fb0110000003001000000303c0f162d96001000668ebe3cb22c0")
    picture = bytes.fromhex("1701000000") + b"\0\0\0\x05\x65" + bytes(4)
    media = chunks(4, DATA, 1, 0, METADATA) + chunks(6, VIDEO, 1, 0, config) + chunks(4, AUDIO, 1, 0, b"\xaf\0\x11\x90")
    media += chunks(6, VIDEO, 1, 33, picture) + chunks(4, AUDIO, 1, 0x01000000, b"\xaf\x01\x21\x1b")
    # The same once more, in the shorter headers that encoders use.
    media += b"\x46\0\0\x21" + struct.pack(">I", len(picture))[1:] + b"\x09" + picture + b"\x86\0\0\x21" + picture + b"\xc6" + picture
    control = chunks(2, 1, 0, 0, struct.pack(">I", 4096)) + chunks(2, 5, 0, 0, struct.pack(">I", 1000))
    control += chunks(2, 4, 0, 0, b"\0\x06\0\0\0\x01") + chunks(2, 2, 0, 0, struct.pack(">I", 6))
    goodbye = chunks(3, COMMAND, 0, 0, command("FCUnpublish", 6, None, "x?key=k"))
    goodbye += chunks(3, COMMAND, 0, 0, command("deleteStream", 7, None, 1))
    aggregate = chunks(6, AGGREGATE, 1, 66, flv_tag(VIDEO, 5, picture) + flv_tag(AUDIO, 9, b"\xaf\x01\x21"))
    play = chunks(3, COMMAND, 0, 0, CONNECT) + chunks(3, COMMAND, 1, 0, command("play", 2, None, "x"))
    amf3 = chunks(3, 17, 1, 0, b"\0" + command("publish", 4) + b"\x11\x01\x11\x06\x0fx?key=k")
    for size, name, conversation in [
        (255, "publish", opening + media + goodbye),
        (3, "in-pieces", opening + media),
        (255, "aggregate", opening + aggregate),
        (255, "control", control + opening),
        (255, "play", play),
        (255, "amf3", chunks(3, COMMAND, 0, 0, CONNECT) + amf3),
    ]:
        seed("rtmp_session", name, bytes([size]) + conversation)
    seed("rtmp_chunks", "stranger", b"\xfe" + opening)
    seed("rtmp_chunks", "trusted", b"\x0b" + control[:16] + media)
    seed("rtmp_chunks", "many-streams", b"\xff" + b"".join(chunks(id, VIDEO, 1, 0, b"v") for id in range(2, 40)))
    seed("rtmp_chunks", "long-ids", b"\xff\0\x05" + chunks(3, VIDEO, 1, 0, b"v")[1:] + b"\x01\x05\x01" + chunks(3, VIDEO, 1, 0, b"v")[1:])

    for name, kind, body in [
        ("connect", COMMAND, CONNECT), ("publish-amf3", 17, b"\0" + command("publish", 4) + b"\x11\x01"),
        ("metadata", DATA, METADATA), ("metadata-amf3", 15, b"\0" + METADATA), ("ping", 4, b"\0\x06\0\0\0\x01"),
        ("window", 5, b"\0\0\x10\0"), ("aggregate", AGGREGATE, flv_tag(VIDEO, 5, picture) + flv_tag(AUDIO, 9, b"\xaf\x01")),
    ]:
        seed("rtmp_message", name, bytes([kind]) + body)
    for name, lines in [
        ("obs", ["live", "rtmp://host/live", "cam1?key=secret", "FMLE/3.0 (compatible; FMSc/1.0)"]),
        ("in-app", ["live/?a=b&key=secret", "rtmp://host/live?key=secret", "cam1", "Larix/1.3"]),
        ("hostile", ["..", "rtmp://h", "a/b?key=", "<script>"]),
    ]:
        seed("publish_address", name, "\n".join(lines).encode())
    publication(config, picture)


def publication(config, picture):
    """Acts of ingest/src/fuzzing.rs: a publisher for some seconds at ten pictures a second, gone, and back."""
    def act(kind, wait, stamp, body=b""):
        return struct.pack(">BHIH", kind, wait, stamp, len(body)) + body
    delta = bytes.fromhex("2701000000") + b"\0\0\0\x02\x41\x9a"

    def publish(seconds, sound, keyframe_every=20):
        out = act(2, 0, 3 if sound else 1) + act(0, 0, 0, config)
        out += act(1, 0, 0, b"\xaf\0\x11\x90") if sound else b""
        for number in range(seconds * 10):
            out += act(0, 100, number * 100, delta if number % keyframe_every else picture)
            # Of five sounds in that time, the two that say where they are.
            out += act(1, 0, number * 100, b"\xaf\x01\x21") * (2 if sound else 0)
        return out
    seed("publication", "video", publish(7, False))
    seed("publication", "video-and-audio", publish(5, True))
    seed("publication", "gone-and-back", publish(5, False) + act(4, 5000, 0) + publish(3, False))
    seed("publication", "goodbye", publish(5, False) + act(3, 0, 0) + publish(1, False))
    seed("publication", "jumps", publish(5, False) + act(0, 100, 0x80000000, picture) + act(0, 100, 5, picture))
    sound = act(2, 0, 2) + act(1, 0, 0, b"\xaf\0\x11\x90")
    sound += b"".join(act(1, 21, number * 21, b"\xaf\x01\x21\x1b") for number in range(240))
    seed("publication", "audio-alone", sound)


# An avcC of x264, Baseline, 640x360: that of ingest's own tests.
AVCC = "0142c01effe100196742c01eda0280bfe5c044000003000400000300f03c58ba8001000468ce0fc8"


# --- HTTP, wire and files -------------------------------------------------------------------------------------------


def viewers():
    for name, query in [
        ("reload", "_HLS_msn=8&_HLS_part=1"), ("segment", "_HLS_msn=9"), ("delta", "_HLS_msn=8&_HLS_part=0&_HLS_skip=YES"),
        ("filter", "max=480&only=video"), ("foreign", "token=a%3Db&max=0480&_HLS_skip=v2"), ("twice", "max=1&max=2"),
    ]:
        seed("hls_query", name, query.encode())
    base = "/hls/live/cam1"
    session = f"{base}/00000000000000ab/v"
    for name, path in [
        ("multivariant", f"{base}/index.m3u8"), ("media", f"{session}/index.m3u8"), ("part", f"{session}/17.4.m4s"),
        ("segment", f"{session}/0.m4s"), ("init", f"{session}/init-00c0ffee00c0ffee.mp4"),
        ("token", "/hls/~abc.def_ghi/live/cam1/index.m3u8"), ("watch", "/watch/live/cam1"), ("state", "/state/live/cam1"),
        ("climbing", "/hls/../../etc/passwd"),
    ]:
        seed("request_path", name, path.encode())
    for name, lines in [
        ("range", ["range:bytes=0-9", "if-range:\"a.1\""]), ("suffix", ["range:bytes=-10"]),
        ("open", ["range:bytes=90-", "accept-encoding:gzip, br;q=0.5"]),
        ("gzip", ["accept-encoding:gzip;q=0, *;q=0.1", "if-none-match:W/\"a.1\", \"b\""]),
    ]:
        seed("request_headers", name, "\n".join(lines).encode())
    seed("request_authorization", "bearer", b"Bearer  abcdefghijklmnop")
    seed("request_authorization", "basic", b"Basic YTpi")


def wire():
    """Frames of core/relay/src/wire: a child that hears everything from the record to the end."""
    def frame(kind, payload=b"", flags=0, track=0, number=0, dts=0, duration=0, group=0):
        head = struct.pack("<IBBHIIqiI", 32 + len(payload), kind, flags, track, group, number, dts, 0, duration)
        return head + payload

    def rendition(name, target, sample_entry, config):
        config = sample_entry + bytes.fromhex(config)
        fields = struct.pack("<IQQI", target, 3_000_000, 2_500_000, len(name)) + name
        return fields + struct.pack("<I", len(config)) + config
    head = b"00000000000000ab" + struct.pack("<IIIIdH", 2, 1536, 4, 28_000, 29.97, 2)
    record = head + rendition(b"v", 501, b"avc1", AVCC) + rendition(b"a", 512, b"mp4a", "1190")
    part = struct.pack("<QQqQQI", 20, 7, 1_800_000_000_000, 1, 0xC0FFEE, 4)
    index = frame(16, record) + frame(17) + frame(18, struct.pack("<Q", 0xC0FFEE) + b"ftypmoov")
    index += frame(19, part, flags=0x09, duration=45_000) + frame(20)
    live = frame(19, part + b"moof", flags=0x05, number=1, duration=45_000) + frame(22, dts=1_800_000_000_123)
    live += frame(99, b"from a newer version") + frame(21, track=1) + frame(23)
    seed("wire_frames", "everything", b"\xff" + index + live)
    seed("wire_frames", "in-pieces", b"\x06" + index + live)
    seed("wire_frames", "resumed", b"\xff" + frame(16, record) + frame(17, flags=0x20) + frame(20) + live)
    def track(number, every, flags, name, sample_entry, config):
        config = sample_entry + bytes.fromhex(config)
        fields = struct.pack("<HIIII", number, 512, 0, 3_000_000, 2_500_000)
        fields += struct.pack("<BHBII", every, 0, flags, 130_000, 128_000)
        return fields + struct.pack("<I", len(name)) + name + struct.pack("<I", len(config)) + config
    opus = b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00".hex()
    stream = b"00000000000000ab" + struct.pack("<IIdIIH", 3, 1536, 29.97, 4, 28_000, 2)
    stream += track(0, 0, 0, b"v", b"avc1", AVCC) + track(2, 1, 3, b"ao", b"Opus", opus)
    boundary = struct.pack("<QIqQ", 20, 1, 1_800_000_000_000, 1)
    units = frame(24, stream) + frame(25, struct.pack("<dq", 2.0, 0)) + frame(2, b"avc1" + bytes.fromhex(AVCC), group=7)
    units += frame(3, boundary, flags=1, number=1, dts=180_000, group=7)
    units += frame(1, b"picture", flags=1, number=2, dts=180_000, duration=3_000, group=7)
    units += frame(25, struct.pack("<dq", 2.0, 1_800_000_000_123)) + frame(4, track=2, dts=96_000) + frame(22) + frame(23)
    seed("wire_frames", "units", b"\xff" + units)
    seed("wire_frames", "units-in-pieces", b"\x06" + units)
    resume = "00000000000000ab;v:20.1,a:20.1"
    for name, lines in [
        ("edge", ["1", "2", "edge2", resume]), ("units", ["1", "2", "edge2", "00000000000000ab.3;0:7.3,2:7.0"]),
        ("wants", ["1", "2", "edge2", "keyframe&tracks=2,5"]), ("versions", ["9, 1", "2", "edge2, shield"]),
        ("loop", ["1", "2", "edge1, shield"]), ("old", ["0", "1", "edge2"]),
    ]:
        seed("wire_hello", name, "\n".join(lines).encode())


def pipe():
    """Conversations of transcode/pipe, one for each direction; the first byte's lowest bit says which."""
    def message(kind, payload=b"", flags=0, rung=0, pts=0, dts=0, duration=0):
        return struct.pack("<IBBHqqII", 32 + len(payload), kind, flags, rung, pts, dts, duration, 0) + payload

    def codec(sample_entry, record):
        record = bytes.fromhex(record)
        return sample_entry + struct.pack("<I", len(record)) + record
    unit = bytes.fromhex("00000005658884000a")
    rungs = [(0, 1280, 720, 2500, 1), (1, 854, 480, 1200, 1), (2, 426, 240, 250, 2)]
    video = struct.pack("<HB", 1, 1) + codec(b"avc1", AVCC) + struct.pack("<III", 90_000, 30_000, 1_001)
    video += b"\x02\x07x264enc\x0bopenh264enc" + bytes([len(rungs)])
    video += b"".join(struct.pack("<HHHIB", *rung) for rung in rungs)
    audio = struct.pack("<HB", 1, 2) + codec(b"mp4a", "1190") + struct.pack("<IBIBI", 44_100, 2, 48_000, 2, 96)
    units = message(2, unit, 3, 0, 180_000, 180_000, 3_000) + message(2, unit[:6], 0, 0, 189_000, 183_000, 3_000)
    for name, size, job in [("video", 254, video), ("video-in-pieces", 12, video), ("audio", 254, audio)]:
        seed("pipe_messages", name, bytes([size]) + message(1, job) + units + message(3, codec(b"avc1", AVCC)) + message(4))
    answers = message(16, b"\x07x264enc") + message(17, codec(b"avc1", AVCC), 0, 2)
    answers += message(18, unit, 1, 2, 180_000, 180_000, 3_000) + message(19, struct.pack("<QQQQ", 31, 30, 3_000, 700_000))
    answers += message(20, b"\x04rung 2 has no IDR at 360000")
    seed("pipe_messages", "answers", b"\xff" + answers)
    seed("pipe_messages", "answers-in-pieces", b"\x11" + answers)


def webrtc():
    def attribute(kind, value):
        return struct.pack(">HH", kind, len(value)) + value + bytes(-len(value) % 4)

    def message(attributes, more):
        return struct.pack(">HHI", 1, len(attributes) + more, 0x2112A442) + bytes(range(12)) + attributes

    attributes = attribute(0x0006, b"ours:theirs") + attribute(0x0024, bytes([110, 0, 0, 255])) + attribute(0x0025, b"")
    attributes += attribute(0x0008, hmac.digest(b"a password", message(attributes, 24), "sha1"))
    check = zlib.crc32(message(attributes, 8)) ^ 0x5354554E
    seed("webrtc_binding_request", "nomination", message(attributes + attribute(0x8028, struct.pack(">I", check)), 0))

    for name, family, address in [("v4", 1, bytes([203, 0, 113, 7])), ("v6", 2, bytes.fromhex("20010db8000000000000000000000007"))]:
        key = struct.pack(">I", 0x2112A442) + bytes(range(12))
        mapped = struct.pack(">BBH", 0, family, 8189 ^ 0x2112) + bytes(a ^ b for a, b in zip(address, key))
        answer = message(attribute(0x8022, b"a server") + attribute(0x0020, mapped), 0)
        seed("webrtc_stun_answer", name, b"\1\1" + answer[2:])

    for offer in ("firefox", "aiortc"):
        seed("webrtc_offer", offer, (ROOT / f"core/rtc/src/sdp/fixtures/{offer}.sdp").read_bytes())

    def extension(kind, body):
        return struct.pack(">HH", kind, len(body)) + body

    extensions = extension(10, struct.pack(">HHH", 4, 29, 23)) + extension(11, b"\1\0") + extension(23, b"")
    extensions += extension(13, struct.pack(">HH", 2, 0x0403)) + extension(14, struct.pack(">HHHB", 4, 1, 7, 0))
    hello = b"\xfe\xfd" + bytes(range(32)) + bytes(2) + struct.pack(">HHBB", 2, 0xC02B, 1, 0)
    hello += struct.pack(">H", len(extensions)) + extensions

    def record(number, offset, part):
        fragment = b"\1" + len(hello).to_bytes(3) + bytes(2) + offset.to_bytes(3) + len(part).to_bytes(3) + part
        datagram = b"\x16\xfe\xff" + number.to_bytes(8) + struct.pack(">H", len(fragment)) + fragment
        return struct.pack(">H", len(datagram)) + datagram

    seed("webrtc_dtls", "hello", record(0, 0, hello))
    seed("webrtc_dtls", "hello-in-fragments", record(0, 0, hello[:60]) + record(1, 60, hello[60:]))

    report = struct.pack(">BBHII", 0x81, 201, 7, 1, 11) + bytes(20)
    seed("webrtc_rtcp", "report-and-nack", report + struct.pack(">BBHIIHH", 0x81, 205, 3, 1, 11, 7, 5))
    seed("webrtc_rtcp", "picture-loss", struct.pack(">BBHII", 0x81, 206, 2, 1, 11))
    seed("webrtc_rtcp", "estimate", struct.pack(">BBHII4sII", 0x8F, 206, 5, 1, 0, b"REMB", 0x01060000 | 0x7A12, 11))
    feedback = struct.pack(">HHBBBB", 7, 2, 0, 0, 9, 1) + struct.pack(">HBB", 0x2002, 4, 8)
    seed("webrtc_rtcp", "congestion-control", struct.pack(">BBHII", 0x8F, 205, 5, 1, 11) + feedback)


def files():
    sample = (ROOT / "tidecast.sample.toml").read_text()
    settings = [line.removeprefix("#").split("  # ")[0].rstrip() for line in sample.splitlines()]
    settings = "\n".join(line for line in settings if line and not line.startswith(" "))
    seed("config_file", "sample", settings.encode())
    seed("config_file", "with-key", settings.replace('publish_key = ""', 'publish_key = "abcdefghijklmnop"').encode())
    seed("config_file", "dotted", b'http.listen = ":8081"\nrtmp = { listen = "127.0.0.1:1935" }\npublish.linger = "5s"\n')
    seed("config_file", "wrong", b'[http]\nlisten = 8080\nconnections = "6"\n[[rtmp]]\n')
    track = {"part_target_ms": 501, "reorder_delay": 0, "bandwidth_peak": 3000000, "bandwidth_average": 2500000}
    both = {
        "format": 1, "app": "live", "stream": "cam", "session": "00000000000000ab", "epoch": 3,
        "since_ms": 1799999900000, "anchor_ms": 1799999940123, "position_ms": 40000, "msn": 20, "group": 21,
        "discontinuity_sequence": 1, "frame_rate": 30.0, "frame": 3000, "part": 45000, "follower_frame": 1024,
        "target_duration_s": 4, "window_ms": 28000,
        "tracks": [{"sample_entry": "avc1", "config": AVCC, **track}, {"sample_entry": "mp4a", "config": "1190", **track}],
    }
    seed("checkpoint", "both", json.dumps(both).encode())
    alone = {**both, "follower_frame": None, "frame_rate": None, "frame": 1024, "part": 24576, "tracks": both["tracks"][1:]}
    seed("checkpoint", "sound-alone", json.dumps(alone).encode())


def whip():
    head = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n"
    transport = ("c=IN IP4 0.0.0.0\r\na=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=setup:actpass\r\n"
                 "a=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\na=rtcp-mux\r\na=sendonly\r\n")
    audio = ("m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\n" + transport + "a=mid:0\r\na=rtpmap:111 opus/48000/2\r\n"
             "a=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:63 red/48000/2\r\n")
    video = ("m=video 9 UDP/TLS/RTP/SAVPF 96 102 103\r\n" + transport + "a=mid:1\r\na=rtpmap:96 VP8/90000\r\n"
             "a=rtpmap:102 H264/90000\r\na=fmtp:102 packetization-mode=1;profile-level-id=42e01f\r\n"
             "a=rtcp-fb:102 nack pli\r\na=rtpmap:103 rtx/90000\r\na=fmtp:103 apt=102\r\na=rid:h send\r\na=simulcast:send h\r\n")
    seed("whip_offer", "browser", (head + audio + video).encode())
    extensions = "".join(f"a=extmap:{number} urn:ietf:params:rtp-hdrext:sdes:{name}\r\n" for number, name in
                         [(4, "mid"), (10, "rtp-stream-id"), (11, "repaired-rtp-stream-id")])
    layers = "a=rid:q send\r\na=rid:f send pt=102\r\na=simulcast:send q;~f\r\n"
    seed("whip_offer", "layers", (head + audio + video + extensions + layers).replace("a=simulcast:send h\r\n", "").encode())
    seed("whip_offer", "no-h264", (head + audio + video.replace("H264", "VP9")).encode())
    ice = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n"
    seed("whip_fragment", "trickle", (ice + "m=audio 9 RTP/AVP 0\r\na=mid:0\r\na=end-of-candidates\r\n").encode())
    # Baseline, 640x360, out of x264.
    sps = bytes.fromhex("6742c01eda0280bfe5c0440000030004000003 00f03c58ba80".replace(" ", ""))
    pps = bytes.fromhex("68ce0fc8")
    stap = b"\x78" + b"".join(struct.pack(">H", len(nal)) + nal for nal in (sps, pps))
    idr, sound = bytes(60), bytes([0xFC]) + bytes(20)
    packets, number = b"", 65533
    for flags, timestamp, payload in [
        (0, 0, stap), (0, 0, b"\x7c\x85" + idr), (2, 0, b"\x7c\x45" + idr), (3, 0, sound), (2, 3000, b"\x41" + idr),
        (7, 960, sound), (6, 6000, b"\x41" + idr),
    ]:
        own = number if flags & 1 == 0 else 7 + timestamp // 960
        packets += struct.pack(">BHIBB", flags, own % 65536, timestamp, 20, len(payload)) + payload
        number += flags & 1 == 0
    seed("whip_rtp", "both", packets)
    # The same picture in two layers: the first byte says so, and bit 3 which of them it is.
    packets = b""
    for frame in range(4):
        for layer, timestamp in [(0, frame * 3000), (8, 70_000 + frame * 3000)]:
            nals = [stap, b"\x65" + idr] if frame == 0 else [b"\x41" + idr]
            for number, payload in enumerate(nals):
                flags = 0x40 | layer | (2 if number == len(nals) - 1 else 0) | (4 if frame == 1 else 0)
                packets += struct.pack(">BHIBB", flags, 10 * frame + number if frame == 0 else frame + 1, timestamp, 16, len(payload)) + payload
    seed("whip_rtp", "layers", packets)
    other_codecs()


def other_codecs():
    """A keyframe and two pictures after it, in packets as Chromium sends them (ingest/src/whip/access_units/)."""
    body = bytes(60)
    key = bytes.fromhex("500700 9d012a 4001b400") + body
    vp8 = [b"\x90\x80\x81\x23" + key[:40], b"\x80\x80\x81\x23" + key[40:]], [b"\x90\xf0\x81\x24\x01\x20\x51\x07\x00" + body]
    key = bytes.fromhex("82498342 4027f01670") + body
    structure = bytes.fromhex("18 0280 0168 01 00")
    vp9 = ([b"\xaa\x81\x23\x00\x01" + structure + key[:40], b"\xa4\x81\x23\x00\x01" + key[40:]],
           [b"\x8c\x81\x24\x86\x00" + body])
    layers = ([b"\xbe\x81\x23\x00" + bytes.fromhex("30 0280 0168 0500 02d0") + key, b"\xbc\x81\x23\x02\x86\x00" + body],
              [b"\xfc\x81\x24\x00\x02\x86\x00" + body])
    sequence, frame = bytes.fromhex("08 0200002d2a67fd9e017c0020"), b"\x30\x10" + body
    av1 = ([b"\x68" + bytes([len(sequence)]) + sequence + frame[:20], b"\x90" + frame[20:]], [b"\x10\x30\x30" + body])
    measured = ([b"\x08" + bytes([2]) + b"\x12\x00" + bytes([len(sequence)]) + sequence + bytes([len(frame)]) + frame],
                [b"\x00\x3e\x30\x30" + body])
    sets = [bytes.fromhex(text) for text in (
        "40010c01ffff016000000300900000030000030 05d959409".replace(" ", ""),
        "42010101600000030090000003000003005da00280802d16595952930bc05a020000030002000003003c10",
        "4401c073c189")]
    together = b"\x60\x01" + b"".join(struct.pack(">H", len(nal)) + nal for nal in sets)
    h265 = [together, b"\x62\x01\x93" + body, b"\x62\x01\x53" + body], [b"\x02\x01" + body]
    for target, name, (key, picture) in [
        ("vp8", "plain", vp8), ("vp9", "plain", vp9), ("vp9", "spatial", layers), ("av1", "counted", av1),
        ("av1", "measured", measured), ("h265", "fragments", h265),
    ]:
        packets, number = b"", 65533
        for frame_number, payloads in enumerate([key, picture, picture]):
            for payload in payloads:
                marker = 2 if payload is payloads[-1] else 0
                packets += struct.pack(">BHIBB", marker, number % 65536, frame_number * 3000, 20, len(payload)) + payload
                number += 1
        seed(f"whip_rtp_{target}", name, packets)


def recent_ffmpeg():
    python = ROOT / "target/tools/ffmpeg/bin/python"
    if not python.exists():
        sys.exit("no recent ffmpeg: set FFMPEG, or run scripts/setup.sh test")
    find = "import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())"
    return subprocess.run([python, "-c", find], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    FFMPEG = os.environ.get("FFMPEG") or recent_ffmpeg()
    shutil.rmtree(SEEDS, ignore_errors=True)
    for make in (media, amf, rtmp, whip, viewers, wire, pipe, webrtc, files):
        make()
    made = list(SEEDS.rglob("*/*"))
    print(f"{len(made)} seeds, {sum(path.stat().st_size for path in made)} bytes, in {SEEDS.relative_to(ROOT)}")
