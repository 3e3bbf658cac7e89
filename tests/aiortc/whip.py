"""Publishes a bar that wanders over the picture, and a tone, by WHIP with aiortc, until SIGTERM; then ends the session.

    whip.py URL KEY
"""

import array
import asyncio
import fractions
import math
import signal
import sys
import time

import av
from aiortc import AudioStreamTrack, RTCRtpSender, VideoStreamTrack

from session import begin, peer, request, tell

WIDTH, HEIGHT = 320, 180
BAR = 32
STEP = 8

RATE = 48_000
SAMPLES = RATE // 50
TONE_HZ = 440
TONE_PEAK = 0.5


class Bar(VideoStreamTrack):
    at = 0

    async def recv(self):
        pts, time_base = await self.next_timestamp()
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
        luma, *chroma = frame.planes
        row = bytearray(b"\x20" * luma.line_size)
        row[self.at : self.at + BAR] = b"\xd0" * BAR
        luma.update(bytes(row) * HEIGHT)
        for plane in chroma:
            plane.update(b"\x80" * plane.buffer_size)
        self.at = (self.at + STEP) % (WIDTH - BAR)
        frame.pts, frame.time_base = pts, time_base
        return frame


class Tone(AudioStreamTrack):
    begun = None
    pts = 0

    async def recv(self):
        self.begun = self.begun or time.monotonic()
        await asyncio.sleep(self.begun + self.pts / RATE - time.monotonic())
        wave = (math.sin(2 * math.pi * TONE_HZ * at / RATE) for at in range(self.pts, self.pts + SAMPLES))
        frame = av.AudioFrame(format="s16", layout="mono", samples=SAMPLES)
        frame.planes[0].update(array.array("h", (round(32_767 * TONE_PEAK * at) for at in wave)).tobytes())
        frame.pts, frame.sample_rate, frame.time_base = self.pts, RATE, fractions.Fraction(1, RATE)
        self.pts += SAMPLES
        return frame


async def publish(url, key):
    asked_to_end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_end.set)
    connection = peer()
    video = connection.addTransceiver(Bar(), direction="sendonly")
    codecs = RTCRtpSender.getCapabilities("video").codecs
    video.setCodecPreferences([codec for codec in codecs if codec.mimeType == "video/H264"])
    connection.addTransceiver(Tone(), direction="sendonly")
    session = await begin(connection, url, key)
    await asked_to_end.wait()
    with await asyncio.to_thread(request, "DELETE", session, key) as response:
        tell("ended", status=response.status)
    await connection.close()


asyncio.run(publish(*sys.argv[1:]))
