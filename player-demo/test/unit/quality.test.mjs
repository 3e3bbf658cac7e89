import assert from "node:assert/strict";
import test from "node:test";
import {
  NOTHING, Patience, STANDS_STILL_MAX, buttonWords, describe, filtered, isChoice, keepChoice, keptChoice, menuItems, nameOf,
  nameOfChoice, nearest, offerOf, readForWebRtc, readMultivariant,
} from "../../src/watch/quality.ts";

const rendition = (height, changes) => ({ width: (height * 16) / 9, height, frameRate: 30, bitrate: height * 2500, ...changes });
const LADDER = offerOf([rendition(360), rendition(1080), rendition(720)], true);
const variant = (codec, size, name) => `#EXT-X-STREAM-INF:BANDWIDTH=1000,CODECS="${codec},mp4a.40.2",RESOLUTION=${size}\ns/${name}/index.m3u8\n`;
const heights = (offer) => offer.renditions.map(({ height }) => height);

test("renditions are offered from the largest on, one per height, the best of its height", () => {
  assert.deepEqual(heights(LADDER), [1080, 720, 360]);
  const two = offerOf([rendition(720, { bitrate: 2e6 }), rendition(720, { bitrate: 3e6 }), rendition(720, { bitrate: 1e6 })], false);
  assert.deepEqual(two.renditions.map(({ bitrate }) => bitrate), [3e6]);
  assert.deepEqual(offerOf([rendition(0)], true), NOTHING, "sound without a picture is no choice");
});

test("a menu is there only for a choice", () => {
  assert.equal(isChoice(LADDER), true);
  assert.equal(isChoice(offerOf([rendition(720)], true)), true, "the picture or the sound alone");
  assert.equal(isChoice(offerOf([rendition(720)], false)), false);
  assert.equal(isChoice(NOTHING), false);
});

test("a kept height is applied as the nearest one not above it, or as the smallest", () => {
  const taken = (height) => nearest(LADDER.renditions, height).height;
  assert.deepEqual([2160, 1080, 1079, 720, 480, 360, 240].map(taken), [1080, 1080, 720, 720, 360, 360, 360]);
  assert.equal(nearest([], 720), null);
});

test("a high frame rate is told, an ordinary one is not", () => {
  const rates = [60, 60000 / 1001, 50, 30, null].map((frameRate) => nameOf(rendition(720, { frameRate })));
  assert.deepEqual(rates, ["720p60", "720p60", "720p", "720p", "720p"]);
});

test("the button says what is chosen, and what Auto shows", () => {
  const words = (choice, shown = null) => buttonWords(choice, LADDER, shown).join(" ").trim();
  assert.equal(words("auto", rendition(480)), "Auto 480p");
  assert.equal(words("auto"), "Auto");
  assert.equal(words(720, rendition(360)), "720p");
  assert.equal(words(480), "360p", "what the choice means for this stream");
  assert.equal(words("audio"), "Audio only");
  assert.equal(buttonWords(480, NOTHING, null)[1], "480p");
});

test("the menu has Auto, the pictures and the sound, with the one choice checked", () => {
  const told = (choice, offer = LADDER) =>
    menuItems(choice, offer, rendition(720)).map(({ label, detail, checked }) => `${checked ? "*" : ""}${label} ${detail}`.trim());
  assert.deepEqual(told("auto"), ["*Auto 720p", "1080p 2.7 Mb/s", "720p 1.8 Mb/s", "360p 900 kb/s", "Audio only"]);
  assert.deepEqual(told(480), ["Auto", "1080p 2.7 Mb/s", "720p 1.8 Mb/s", "*360p 900 kb/s", "Audio only"]);
  assert.deepEqual(told("audio").at(-1), "*Audio only");
  assert.deepEqual(told("auto", offerOf([rendition(720)], true)), ["*Auto 720p", "Audio only"], "one picture is what Auto shows");
});

test("the overlay's line has size, bitrate and who chose", () => {
  const shown = rendition(360, { bitrate: 700_000 });
  assert.equal(describe("auto", shown), "640×360, 700 kb/s (auto)");
  assert.equal(describe(360, shown), "640×360, 700 kb/s");
  assert.equal(describe("audio", null), "Audio only");
  assert.equal(describe("auto", null), "–");
  assert.equal(nameOfChoice("audio", LADDER), "Audio only");
  assert.equal(nameOfChoice("auto", LADDER), "Auto");
  assert.equal(nameOfChoice(720, LADDER), "720p");
});

test("filters go on the playlist's address, heights only for the browser's own player", () => {
  assert.equal(filtered("/hls/live/cam/index.m3u8", "auto", true), "/hls/live/cam/index.m3u8");
  assert.equal(filtered("/hls/live/cam/index.m3u8", 480, false), "/hls/live/cam/index.m3u8");
  assert.equal(filtered("/hls/live/cam/index.m3u8", 480, true), "/hls/live/cam/index.m3u8?max=480");
  assert.equal(filtered("https://b.example/index.m3u8?t=1", "audio", false), "https://b.example/index.m3u8?t=1&only=audio");
});

test("what a multivariant playlist offers is read from it", () => {
  const offer = readMultivariant(`#EXTM3U
#EXT-X-MEDIA:TYPE=AUDIO,URI="s/a/index.m3u8",GROUP-ID="audio",NAME="A, B=C",DEFAULT=YES
#EXT-X-STREAM-INF:BANDWIDTH=562000,AVERAGE-BANDWIDTH=403525,CODECS="avc1.640015,mp4a.40.2",RESOLUTION=426x240,FRAME-RATE=59.94,AUDIO="audio"\r
s/v240/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=1312000,CODECS="avc1.64001e,mp4a.40.2",RESOLUTION=640x360,AUDIO="audio"
s/v/index.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=96000,CODECS="mp4a.40.2"
s/a/index.m3u8
`);
  assert.deepEqual(offer, {
    renditions: [
      { width: 640, height: 360, bitrate: 1312000, frameRate: null },
      { width: 426, height: 240, bitrate: 403525, frameRate: 59.94 },
    ],
    audioOnly: true,
  });
  const muxed = '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="A"\n#EXT-X-STREAM-INF:BANDWIDTH=1,RESOLUTION=2x2';
  assert.equal(readMultivariant(muxed).audioOnly, false, "no address, no rendition of its own");
  assert.deepEqual(readMultivariant("<html>no playlist</html>"), NOTHING);
});

test("by WebRTC there is H.264 alone, and in its own size the picture that was made for it", () => {
  const { offer, names } = readForWebRtc(
    [variant("hvc1.1.6.L93", "1280x720", "v"), variant("avc1.64001f", "1280x720", "v720"), variant("avc1.64001e", "640x360", "v360")].join(""),
    [],
  );
  assert.deepEqual([heights(offer), [...names]], [[720, 360], [[720, "v720"], [360, "v360"]]]);
  const own = readForWebRtc([variant("avc1.64001f", "1280x720", "v"), variant("avc1.64001e", "640x360", "v360")].join(""), []);
  assert.deepEqual([...own.names], [[720, "v"], [360, "v360"]]);
  const both = readForWebRtc([variant("avc1.64001f", "1280x720", "v720"), variant("avc1.64001f", "1280x720", "v")].join(""), []);
  assert.deepEqual([...both.names], [[720, "v720"]], "the publisher's has B-frames, or there would be no other");
});

test("of a broadcaster that sends several sizes these are what WebRTC offers, whatever the playlist has", () => {
  const playlist = [variant("avc1.64001f", "1280x720", "v"), variant("avc1.64001e", "854x480", "v480")].join("");
  const layers = [
    { name: "v", width: 1280, height: 720, bitrate: 2_500_000 },
    { name: "s360", width: 640, height: 360, bitrate: null },
  ];
  const { offer, names } = readForWebRtc(playlist, layers);
  assert.deepEqual([heights(offer), [...names]], [[720, 360], [[720, "v"], [360, "s360"]]]);
  assert.deepEqual(menuItems("auto", offer, null).map(({ label, detail }) => [label, detail]), [["Auto", ""], ["720p", "2.5 Mb/s"], ["360p", ""]]);
});

test("a height is kept, Auto forgets it, and the sound alone is kept for nobody's next visit", () => {
  const store = new Map();
  const kept = { get: (key) => store.get(key) ?? null, set: (key, value) => (value === null ? store.delete(key) : store.set(key, value)) };
  assert.equal(keptChoice(kept), "auto");
  keepChoice(kept, 480);
  assert.equal(keptChoice(kept), 480);
  keepChoice(kept, "audio");
  assert.equal(keptChoice(kept), 480);
  keepChoice(kept, "auto");
  assert.equal(store.size, 0);
  for (const nonsense of ["-1", "x", "1.5", "", "Infinity"]) {
    assert.equal(keptChoice({ ...kept, get: () => nonsense }), "auto", nonsense);
  }
});

test("a fixed choice is given up when nothing of it comes for 8 s, and not before", () => {
  const patience = new Patience();
  assert.equal(patience.isOver(0, 1), false);
  assert.equal(patience.isOver(STANDS_STILL_MAX - 1, 1), false);
  assert.equal(patience.isOver(STANDS_STILL_MAX, 2), false, "a picture at last");
  assert.equal(patience.isOver(2 * STANDS_STILL_MAX - 1, null), false);
  assert.equal(patience.isOver(2 * STANDS_STILL_MAX, null), true, "another rendition is not what was chosen");
  patience.reset();
  assert.equal(patience.isOver(3 * STANDS_STILL_MAX, null), false, "chosen only now");
  assert.equal(patience.isOver(4 * STANDS_STILL_MAX, null), true);
});
