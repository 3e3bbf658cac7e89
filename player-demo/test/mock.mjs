// A stand-in for the server: dist/, /state, and a low-latency HLS stream that ffmpeg encodes in real time.
// Run by hand: `node test/mock.mjs [port]`, then open /watch/live/cam.

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { dirname, extname, join, normalize } from "node:path";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..");
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8" };
const FPS = 30;
const GOP_SECONDS = 2;
const WINDOW_SEGMENTS = 8;

/** `twin`: another one, whose streams this one has, too. */
export async function startMock({ port = 0, twin = null } = {}) {
  const csp = (await readFile(join(ROOT, "csp.txt"), "utf8")).trim();
  const { streams, channels } = twin ?? { streams: new Map(), channels: new Map() };
  const mock = {
    /** Milliseconds that it takes to get a stream which nobody has asked for here, and when it has it. */
    cold: 0, warm: null,
    streams, channels, broken: false, hangs: false, drained: false, alternates: [], reportRequests: [], reports: new Map(), gate: null,
  };

  const server = createServer(async (request, response) => {
    const url = new URL(request.url, "http://mock");
    const reply = (status, type, body, headers = {}) => {
      if (mock.hangs) return;
      // For the pages of other nodes.
      const anybody = { "Access-Control-Allow-Origin": "*" };
      response.writeHead(status, { "Content-Type": type, "Cache-Control": "no-cache", ...anybody, ...headers });
      response.end(body);
    };
    if (mock.broken) return void request.socket.destroy();
    if (url.pathname === "/nodes") {
      const { alternates, drained } = mock;
      return reply(200, "application/json", JSON.stringify({ alternates, drained, self_signed: false }));
    }
    if (url.pathname.startsWith("/state")) {
      const body = stateBody(streams, url.pathname, mock.drained);
      const etag = `"${createHash("sha256").update(body).digest("hex").slice(0, 16)}"`;
      if (request.headers["if-none-match"] === etag) return reply(304, "application/json", "", { ETag: etag });
      return reply(200, "application/json", body, { ETag: etag });
    }
    const about = /^\/connect\/state\/([^/]+\/[^/]+)$/.exec(url.pathname);
    if (about) {
      mock.reportRequests.push({ url: request.url, authorization: request.headers.authorization ?? "" });
      if (mock.gate) return reply(mock.gate.status, "text/plain", mock.gate.words);
      if (request.headers.authorization !== `Bearer ${KEY}`) return reply(401, "text/plain", "the publish key is missing or wrong\n");
      const stream = streams.get(about[1]) ?? emptyStream(about[1]);
      const report = { ...emptyReport(), ...mock.reports.get(about[1]), stream };
      return reply(200, "application/json", JSON.stringify(report), { "Cache-Control": "no-store" });
    }
    const hls = /^\/hls\/([^/]+\/[^/]+)\/(.+)$/.exec(url.pathname);
    if (hls) {
      if (mock.cold > 0) await (mock.warm ??= setTimeout(mock.cold));
      const channel = channels.get(hls[1]);
      return channel ? channel.serve(hls[2], url.searchParams, reply) : reply(404, "text/plain", "no such stream");
    }
    const page = pageAt(url.pathname);
    const policy = csp.replace("connect-src 'self'", `connect-src 'self' ${mock.alternates.join(" ")}`);
    try {
      const path = join(ROOT, "dist", normalize(page));
      reply(200, TYPES[extname(path)] ?? "application/octet-stream", await readFile(path), {
        "Content-Security-Policy": page === "embed.html" ? policy.replace("frame-ancestors 'self'", "frame-ancestors *") : policy,
      });
    } catch {
      reply(404, "text/plain", "not found");
    }
  });
  await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));

  return Object.assign(mock, {
    origin: `http://127.0.0.1:${server.address().port}`,
    set(name, changes) {
      streams.set(name, { ...(streams.get(name) ?? emptyStream(name)), ...changes });
    },
    /**
     * Starts encoding; resolves when the first playlist is there. The state is the test's to set. Who has published under that name
     * before is gone with it.
     */
    async publish(name, options) {
      const channel = new Channel(options);
      const before = channels.get(name);
      if (!before) channels.set(name, channel);
      await channel.ready;
      channels.set(name, channel);
      before?.giveWayTo(channel);
      return channel;
    },
    /** What was published as `other` is served as `name` from now on: other segments, under numbers that have been there. */
    replace(name, other) {
      const [before, after] = [channels.get(name), channels.get(other)];
      channels.delete(other);
      channels.set(name, after);
      before.giveWayTo(after);
    },
    names: () => [...new Set([...streams.keys(), ...channels.keys()])],
    remove(name) {
      channels.get(name)?.stop();
      channels.delete(name);
      streams.delete(name);
    },
    async close() {
      if (!twin) for (const channel of channels.values()) channel.stop();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  });
}

/** A live 720p stream as the server would describe it. */
export function liveStream(changes = {}) {
  return {
    state: "live",
    session: "s1",
    since: Date.now() - 754_000,
    video: { codec: "avc1.64001f", width: 1280, height: 720, frame_rate: 30 },
    audio: { codec: "mp4a.40.2", sample_rate: 48000, channels: 2 },
    bitrate: 2_640_000,
    keyframe_interval: 2,
    viewers: 3,
    part_target: 0.5,
    target_latency: 1.5,
    ...changes,
  };
}

export const KEY = "canary-4711-canary-4711";

function emptyReport() {
  return {
    rtmp_port: 2935, listed: true, frame_rate: null, sound: { state: "none" }, late: 0, warnings: [], hints: [], samples: [],
    refusals: [],
  };
}

function pageAt(path) {
  if (path === "/") return "index.html";
  if (path === "/connect") return "connect.html";
  if (path === "/studio") return "studio.html";
  return { watch: "watch.html", embed: "embed.html" }[path.split("/")[1]] ?? path;
}

function emptyStream(name) {
  const [app, stream] = name.split("/");
  return {
    app, stream, state: "offline", reason: null, session: null, playlist: `/hls/${name}/index.m3u8`, since: null,
    video: null, audio: null, bitrate: null, keyframe_interval: null, viewers: 0, part_target: null, target_latency: null,
    warnings: [],
  };
}

function stateBody(streams, path, drained) {
  const name = path.replace(/^\/state\/?/, "");
  if (name) return JSON.stringify({ ...(streams.get(name) ?? emptyStream(name)), ...(drained ? { drained } : {}) });
  const shown = [...streams.values()].filter(({ state }) => state === "live" || state === "starting");
  return JSON.stringify({ streams: shown, rtmp_port: 2935 });
}

/**
 * One ffmpeg; each fragment of its outputs is a part. One track with sound and picture together, or with `ladder` one of each.
 * With `seconds` it is a recording of that length, made as fast as can be, and over when ffmpeg has exited. With `msn` it goes on
 * with that one where another has ended, of which nothing is left.
 */
class Channel {
  constructor({ part = 0.5, gop = GOP_SECONDS, size = "640x360", clip = null, ladder = null, seconds = null, msn = 0 } = {}) {
    this.part = part;
    this.gop = gop;
    this.msn = msn;
    this.next = null;
    this.ladder = ladder;
    const pace = seconds === null ? ["-re"] : ["-t", `${seconds}`];
    const input = clip
      ? [...pace, "-stream_loop", "-1", "-i", clip]
      : [...pace, "-f", "lavfi", "-i", `testsrc2=size=${size}:rate=${FPS}`, ...pace, "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"];
    const video = (to) => [
      "-map", "0:v", "-vf", `scale=${to.replace("x", ":")},fps=${FPS}`, "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency",
      "-profile:v", "baseline", "-pix_fmt", "yuv420p", "-g", `${gop * FPS}`, "-sc_threshold", "0",
    ];
    const audio = ["-map", clip ? "0:a" : "1:a", "-c:a", "aac", "-ac", "2", "-ar", "48000", "-b:a", "96k"];
    const muxer = [
      "-f", "mp4", "-movflags", "empty_moov+default_base_moof+frag_keyframe", "-frag_duration", `${part * 1e6}`, "-flush_packets", "1",
    ];
    const outputs = ladder
      ? [...ladder.map((to) => [`v${heightOf(to)}`, video(to)]), ["a", audio]]
      : [["v", [...video(size), ...audio]]];
    this.tracks = new Map(outputs.map(([name]) => [name, new Track(this, part)]));
    /** When the first picture or sound was made, in Unix milliseconds: one clock for all tracks, whichever is cut first. */
    this.began = null;
    /** Names of tracks that the server does not have any more. */
    this.gone = new Set();
    this.ready = Promise.all([...this.tracks.values()].map(({ ready }) => ready));
    // Descriptors from 3 on: one pipe for each output.
    this.ffmpeg = spawn("ffmpeg", [
      "-nostdin", "-loglevel", "error", ...input, ...outputs.flatMap(([, options], i) => [...options, ...muxer, `pipe:${3 + i}`]),
    ], { stdio: ["ignore", "ignore", "inherit", ...outputs.map(() => "pipe")] });
    [...this.tracks.values()].forEach((track, i) => track.read(this.ffmpeg.stdio[3 + i]));
    this.exited = new Promise((resolve) => this.ffmpeg.on("close", resolve));
    this.ffmpeg.on("close", () => this.end());
  }

  /** Closes the playlists and lets the encoder go. */
  end() {
    for (const track of this.tracks.values()) track.end();
  }

  stop() {
    this.ffmpeg.kill();
    this.end();
  }

  /** Whoever waits for a playlist gets that of `next`. */
  giveWayTo(next) {
    this.next = next;
    this.stop();
  }

  /**
   * The publisher leaves with the next segment that no track has begun. Resolves with the first part of the one that is there
   * after `segments`.
   */
  async interrupt(segments) {
    const tracks = [...this.tracks.values()];
    const from = Math.max(...tracks.map((track) => Math.ceil(track.parts.length / track.partsPerSegment)));
    await Promise.all(tracks.map((track) => track.interrupt(from, from + segments)));
  }

  async serve(path, query, reply) {
    // As the server has them kept: an address with the number of a part names one version.
    const age = query.has("_HLS_msn") ? { "Cache-Control": "public, max-age=24" } : {};
    const playlist = (text) => reply(200, "application/vnd.apple.mpegurl", text, age);
    if (path === "index.m3u8") return playlist(this.multivariant(query));
    const [, name, file] = /^(\w+)\/(.+)$/.exec(path) ?? [];
    const track = this.gone.has(name) ? undefined : this.tracks.get(name);
    if (!track) return reply(404, "text/plain", "no such track");
    if (file === "index.m3u8") {
      if (query.has("_HLS_msn")) await track.reached(Number(query.get("_HLS_msn")), query.get("_HLS_part"));
      if (this.next) return this.next.serve(path, query, reply);
      return this.gone.has(name) ? reply(404, "text/plain", "gone") : playlist(track.playlist());
    }
    const body = track.media(file);
    if (!body) return reply(404, "video/mp4", "");
    // `init.mp4` names no bytes, which those of the server do.
    return reply(200, "video/mp4", body, file.endsWith(".m4s") ? { "Cache-Control": "public, max-age=3600, immutable" } : {});
  }

  multivariant(query) {
    const lines = ["#EXTM3U", "#EXT-X-VERSION:9"];
    const variant = (bandwidth, codecs, more, uri) => lines.push(`#EXT-X-STREAM-INF:BANDWIDTH=${bandwidth},CODECS="${codecs}"${more}`, uri);
    if (!this.ladder) {
      variant(3_000_000, "avc1.42c01f,mp4a.40.2", ",RESOLUTION=640x360,FRAME-RATE=30.000", "v/index.m3u8");
    } else if (query.get("only") === "audio") {
      variant(96_000, "mp4a.40.2", "", "a/index.m3u8");
    } else {
      const max = Number(query.get("max") ?? Number.POSITIVE_INFINITY);
      lines.push('#EXT-X-MEDIA:TYPE=AUDIO,URI="a/index.m3u8",GROUP-ID="audio",NAME="Audio",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2"');
      for (const size of this.ladder.filter((to) => heightOf(to) <= max)) {
        const about = `,RESOLUTION=${size},FRAME-RATE=30.000,AUDIO="audio"`;
        variant(heightOf(size) * 2500, "avc1.42c01f,mp4a.40.2", about, `v${heightOf(size)}/index.m3u8`);
      }
    }
    return `${lines.join("\n")}\n`;
  }
}

function heightOf(size) {
  return Number(size.split("x")[1]);
}

class Track {
  constructor(channel, part) {
    this.channel = channel;
    this.part = part;
    this.partsPerSegment = Math.round(channel.gop / part);
    this.parts = [];
    this.init = null;
    this.ended = false;
    this.waiting = new Set();
    /** What comes now is lost: its parts are gaps. */
    this.losing = false;
    /** Between two publishers, as indices of parts. */
    this.away = { from: 0, to: 0 };
    this.ready = new Promise((resolve) => (this.onReady = resolve));
  }

  /** Cuts what ffmpeg writes into the init segment and parts. */
  read(output) {
    let pending = Buffer.alloc(0);
    let collected = [];
    output.on("data", (bytes) => {
      pending = Buffer.concat([pending, bytes]);
      while (pending.length >= 8 && pending.length >= pending.readUInt32BE(0)) {
        const size = pending.readUInt32BE(0);
        collected.push(pending.subarray(0, size));
        const type = pending.toString("latin1", 4, 8);
        pending = pending.subarray(size);
        if (type === "moov") this.init = Buffer.concat(collected.splice(0));
        if (type === "mdat") this.addPart(Buffer.concat(collected.splice(0)));
      }
    });
  }

  addPart(bytes) {
    this.channel.began ??= Date.now() - this.part * 1000;
    const { from, to } = this.away;
    const lost = this.losing || (this.parts.length >= from && this.parts.length < to);
    this.parts.push(lost ? null : bytes);
    if (this.parts.length >= this.partsPerSegment) this.onReady();
    this.wake();
  }

  end() {
    this.ended = true;
    this.wake();
  }

  /** Segments `from` to before `to` are gaps. Resolves with the first part behind them. */
  async interrupt(from, to) {
    this.away = { from: from * this.partsPerSegment, to: to * this.partsPerSegment };
    await this.reached(to, 0);
  }

  wake() {
    for (const check of [...this.waiting]) check();
  }

  /** The bytes of `init.mp4`, of a segment or of a part; null for what is not there. */
  media(file) {
    if (file === "init.mp4") return this.init;
    const media = /^(\d+)(?:\.(\d+))?\.m4s$/.exec(file);
    if (!media) return null;
    const first = (Number(media[1]) - this.channel.msn) * this.partsPerSegment + Number(media[2] ?? 0);
    const parts = this.parts.slice(first, first + (media[2] ? 1 : this.partsPerSegment));
    return parts.length > 0 && !parts.includes(null) ? Buffer.concat(parts) : null;
  }

  /** A blocking reload: resolves when the playlist holds that part. */
  reached(msn, part) {
    const wanted = (msn - this.channel.msn) * this.partsPerSegment + (part === null ? this.partsPerSegment - 1 : Number(part));
    return new Promise((resolve) => {
      const check = () => {
        if (this.parts.length <= wanted && !this.ended) return;
        this.waiting.delete(check);
        resolve();
      };
      this.waiting.add(check);
      check();
    });
  }

  playlist() {
    const { part, partsPerSegment, parts } = this;
    const { began, gop, msn } = this.channel;
    const segments = Math.ceil(parts.length / partsPerSegment);
    const first = Math.max(0, segments - WINDOW_SEGMENTS);
    const lines = [
      "#EXTM3U", "#EXT-X-VERSION:9", `#EXT-X-TARGETDURATION:${GOP_SECONDS * 2}`, `#EXT-X-MEDIA-SEQUENCE:${msn + first}`,
      `#EXT-X-DISCONTINUITY-SEQUENCE:${Number(msn > 0)}`,
      `#EXT-X-PART-INF:PART-TARGET=${part.toFixed(3)}`,
      `#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=${(part * 3).toFixed(3)}`,
      '#EXT-X-MAP:URI="init.mp4"',
    ];
    for (let i = first; i < segments; i += 1) {
      if (i > 0 && i * partsPerSegment === this.away.to) lines.push("#EXT-X-DISCONTINUITY");
      lines.push(`#EXT-X-PROGRAM-DATE-TIME:${new Date(began + i * gop * 1000).toISOString()}`);
      const here = parts.slice(i * partsPerSegment, (i + 1) * partsPerSegment);
      here.forEach((bytes, k) => {
        const gap = bytes === null ? ",GAP=YES" : "";
        lines.push(`#EXT-X-PART:DURATION=${part.toFixed(3)},URI="${msn + i}.${k}.m4s"${k === 0 ? ",INDEPENDENT=YES" : ""}${gap}`);
      });
      if (here.includes(null)) lines.push("#EXT-X-GAP");
      if (here.length === partsPerSegment || this.ended) lines.push(`#EXTINF:${(here.length * part).toFixed(3)},`, `${msn + i}.m4s`);
    }
    if (this.ended) lines.push("#EXT-X-ENDLIST");
    else {
      const next = `${msn + Math.floor(parts.length / partsPerSegment)}.${parts.length % partsPerSegment}`;
      lines.push(`#EXT-X-PRELOAD-HINT:TYPE=PART,URI="${next}.m4s"`);
    }
    return `${lines.join("\n")}\n`;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const mock = await startMock({ port: Number(process.argv[2] ?? 8099) });
  await mock.publish("live/cam", { clip: process.env.CLIP ?? null, size: "1280x720", part: Number(process.env.PART ?? 0.5), ladder: process.env.LADDER?.split(",") ?? null });
  mock.set("live/cam", liveStream());
  mock.set("live/obs-default", liveStream({ keyframe_interval: 8.33, viewers: 1 }));
  console.log(`${mock.origin}/watch/live/cam`);
}
