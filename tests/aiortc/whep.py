"""Watches a stream by WHEP with aiortc, and says after some seconds what it has seen and heard; then stays until the stream ends.

    whep.py URL SECONDS
"""

import array
import asyncio
import math
import sys
import time

from aiortc.mediastreams import MediaStreamError

from session import begin, peer, tell

# By which the row in the middle of two pictures must differ to be two: codecs change a pixel by less.
CHANGE = 1.0


class Seen:
    frames = 0
    changes = 0
    size = (0, 0)
    row = b""

    def take(self, frame):
        luma = frame.planes[0]
        start = frame.height // 2 * luma.line_size
        row = bytes(luma)[start : start + frame.width]
        if self.size == (frame.width, frame.height):
            difference = sum(abs(a - b) for a, b in zip(row, self.row)) / frame.width
            self.changes += difference > CHANGE
        self.frames, self.size, self.row = self.frames + 1, (frame.width, frame.height), row


class Heard:
    samples = 0
    squares = 0
    crossings = 0
    rate = 0

    def take(self, frame):
        left = array.array("h", bytes(frame.planes[0])[: frame.samples * 4])[::2]
        self.samples, self.rate = self.samples + len(left), frame.sample_rate
        self.squares += sum(sample * sample for sample in left)
        self.crossings += sum((a < 0) != (b < 0) for a, b in zip(left, left[1:]))

    def facts(self):
        level = math.sqrt(self.squares / max(self.samples, 1)) / 32_768
        return {"level": level, "pitch_hz": self.crossings / 2 / max(self.samples / max(self.rate, 1), 1e-9)}


async def receive(track, seen):
    """Until the server says that it is over."""
    try:
        while True:
            seen.take(await track.recv())
    except MediaStreamError:
        pass


async def watch(url, seconds):
    connection, seen, heard = peer(), Seen(), Heard()
    receivers = []

    @connection.on("track")
    def found(track):
        receivers.append(asyncio.create_task(receive(track, seen if track.kind == "video" else heard)))

    for kind in ("video", "audio"):
        connection.addTransceiver(kind, direction="recvonly")
    await begin(connection, url)
    async with asyncio.timeout(60):
        while not (seen.frames and heard.samples):
            await asyncio.sleep(0.02)
    begun, seen.frames, seen.changes = time.monotonic(), 0, 0
    await asyncio.sleep(float(seconds))
    watched_s = time.monotonic() - begun
    tell("watched", watched_s=watched_s, frames=seen.frames, changes=seen.changes, size=seen.size, **heard.facts())
    await asyncio.gather(*receivers)
    tell("ended")
    await connection.close()


asyncio.run(watch(*sys.argv[1:]))
