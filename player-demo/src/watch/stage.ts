// The stage: the player and the words in its place, on the watch page and, alone, on other people's pages. Performs what
// the machine decides. There is one on a page.

import "media-chrome/media-captions-button";
import "media-chrome/media-control-bar";
import "media-chrome/media-controller";
import "media-chrome/media-fullscreen-button";
import "media-chrome/media-live-button";
import "media-chrome/media-loading-indicator";
import "media-chrome/media-mute-button";
import "media-chrome/media-pip-button";
import "media-chrome/media-play-button";
import "media-chrome/media-volume-range";
import type Hls from "hls.js";
import { type Stream, type StreamName, streamAddress, whepAddress } from "../api.ts";
import { byId, setText } from "../dom.ts";
import { keptFor } from "../kept.ts";
import { Poller, backoff } from "../poll.ts";
import { keptAgain, nextAgain } from "./again.ts";
import { captionsShow, isCaptions } from "./captions.ts";
import { LIVE_WITHIN } from "./live-edge.ts";
import { type Effect, type Event, type Model, initial, isSettled, step } from "./machine.ts";
import { NodeList, isNodeTrouble } from "./nodes.ts";
import { type Notice, noticeFor } from "./notice.ts";
import { type Player, choosePlayer, codecsLacking, supportedHere } from "./player.ts";
import { type LowLatency, listen, renderQuality, sayGivenUp } from "./quality-menu.ts";
import { type Choice, NOTHING, Patience, keepChoice, keptChoice } from "./quality.ts";
import { Route, keepWish, wish } from "./route.ts";
import { RoutedPlayer } from "./routed-player.ts";
import { type Stats, collect, countPictures } from "./stats.ts";

declare global {
  interface Window {
    /** For tests and for support. */
    tidecast: { readonly hls: Hls | null; readonly video: HTMLVideoElement; stats(): Stats };
  }
}

/** Automatic retries, in milliseconds: quickly at first, a quarter of a minute apart in the end. */
const RETRY_FIRST = 1000;
const RETRY_MAX = 15_000;

/** What an ended programme still has in the buffer has been shown after this long. */
const FINISH_WITHIN = 6000;

/** Playing this long makes earlier failures history. */
const SETTLED_AFTER = 10_000;

/** No picture for this long although the server says live: start over. Longer than a publisher may be gone. */
const STALLED_MAX = 30_000;

/** A server that has left a picture standing still answers by then, or another one is asked, in milliseconds. */
const ANSWER_WITHIN = 3000;

/** How often latency is looked after and numbers are shown, in milliseconds. */
const TICK = 250;

const root = document.documentElement;
export const video = byId("video", HTMLVideoElement);
const controller = byId("player", HTMLElement);
const query = new URLSearchParams(location.search);
const wantedPlayer = query.get("player");
/** `?via=webrtc` or `?via=hls`, for this visit; who asks for a player by name means HLS. */
const via = query.get("via") ?? (wantedPlayer === null ? null : "hls");

/** Set by a server that has no room and sent us here. A link that is passed on must not bring everybody here. */
if (query.has("sent")) {
  query.delete("sent");
  const rest = query.size > 0 ? `?${query}` : "";
  window.history.replaceState(window.history.state, "", `${location.pathname}${rest}${location.hash}`);
}

/** What the page around the stage shows of it. */
export interface Surroundings {
  /** Called after each change. */
  render(model: Model, before: Model): void;
  /** Called a few times a second. */
  tick(): void;
}

let name: StreamName = { app: "", stream: "" };
let surroundings: Surroundings = { render: () => {}, tick: () => {} };
let poller: Poller<Stream>;
const nodes = new NodeList(
  location.origin,
  () => route.want(wish(via, kept, nodes.prefer), player === null ? null : performance.now()),
  () => poller.now(),
);
let model: Model = initial;
let player: Player | null = null;
const kept = keptFor("localStorage");
let choice: Choice = keptChoice(kept);
const route = new Route(wish(via, kept, null), kept);
// Asked for by name it is tried, whatever was seen here before.
if (via === "webrtc") route.forget();
const patience = new Patience();
let openedAt = 0;
/** When what came did not go on with what played. */
let otherAt = Number.NEGATIVE_INFINITY;
let again = keptAgain(kept, Date.now());
let firstPicture: number | null = null;
let stalls = 0;
/** The viewer wants the live edge; false from pausing until "go live". */
let wantsLive = true;
let retryAt: number | null = null;
let retryTimer: number | undefined;
let finishTimer: number | undefined;
let settledTimer: number | undefined;
let stalledTimer: number | undefined;

function send(event: Event): void {
  const before = model;
  const { model: next, effects } = step(model, event);
  model = next;
  for (const effect of effects) perform(effect);
  if (model.phase !== "error") clearRetry();
  render(before);
}

function perform(effect: Effect): void {
  switch (effect.type) {
    case "play":
      return open(effect.playlist);
    case "move":
      return move(effect.from);
    case "stop":
      return close();
    case "poll-now":
      return poller.now();
    case "finish-soon":
      clearTimeout(finishTimer);
      finishTimer = window.setTimeout(() => send({ type: "finish-timeout" }), FINISH_WITHIN);
      return;
    case "retry-later": {
      clearRetry();
      const pause = backoff(RETRY_FIRST, RETRY_MAX, effect.failures, Math.random());
      retryAt = performance.now() + pause;
      retryTimer = window.setTimeout(retry, pause);
      return;
    }
  }
}

function retry(): void {
  clearRetry();
  send({ type: "retry" });
}

function clearRetry(): void {
  clearTimeout(retryTimer);
  retryAt = null;
}

// Playing

function open(playlist: string): void {
  close();
  const kind = choosePlayer(wantedPlayer, supportedHere(video));
  // Not at once: an effect must not change the model under the step that asked for it.
  if (kind === null) return queueMicrotask(() => send({ type: "unsupported", codecs: [] }));
  openedAt = performance.now();
  firstPicture = null;
  wantsLive = true;
  patience.reset();
  const source = {
    playlist,
    again,
    whep: nodes.origin + whepAddress(name),
    layers: () => model.stream?.layers ?? [],
    picture: model.stream?.video != null,
    sound: model.stream?.audio != null,
  };
  player = new RoutedPlayer(video, source, kind, choice, route, {
    onFailure: (detail) => queueMicrotask(() => onFailure(detail)),
    onOther: () => queueMicrotask(onOther),
    onNoAnswer: () => poller.now(),
    onUnsupported: () => queueMicrotask(() => send({ type: "unsupported", codecs: codecsLacking(model.stream) })),
    // The way to it takes seconds of its own.
    onMade: () => patience.reset(),
    onTurned,
    onFlow,
    onEnded: () => send({ type: "media-ended" }),
  });
  video.requestVideoFrameCallback?.(() => (firstPicture = (performance.now() - openedAt) / 1000));
  void play();
}

/** To the node that is asked now. */
function move(from: string): void {
  const answers = nodes.hasLeft(new URL(from, location.href).origin);
  if (!player?.moveTo(nodes.origin || location.origin, answers)) queueMicrotask(() => send({ type: "reopen" }));
}

function close(): void {
  const closing = player;
  player = null;
  for (const timer of [finishTimer, settledTimer, stalledTimer]) clearTimeout(timer);
  closing?.destroy();
}

/** Not for a viewer who has paused: whatever plays now waits as well. */
function onTurned(): void {
  if (!wantsLive) return;
  send({ type: "playback", playback: "loading" });
  void play();
}

/** Opened anew at once, unless it is so again and again. */
function onOther(): void {
  const now = performance.now();
  again = nextAgain(kept, again, Date.now());
  if (now - otherAt < SETTLED_AFTER) return onFailure("the playlist has other segments than before");
  otherAt = now;
  send({ type: "reopen" });
}

function onFailure(detail: string): void {
  // Once may be anything; the second time in a row it may be what was chosen.
  if (choice !== "auto" && model.playbackFailures > 0) giveUp();
  send({ type: "player-failed", detail });
}

/** With sound if the browser lets us, else muted, else by the viewer's tap. */
async function play(): Promise<void> {
  watchForStall();
  for (const muted of [video.muted, true]) {
    video.muted = muted;
    try {
      await video.play();
      if (muted && !mutedByViewer) byId("tap-sound", HTMLElement).hidden = false;
      return;
    } catch (error) {
      // Anything but a refusal is another attempt taking over (AbortError), or the player's to report.
      if (!(error instanceof DOMException) || error.name !== "NotAllowedError") return;
    }
  }
  video.muted = mutedByViewer;
  // Until the tap nothing is wrong, however long it takes.
  clearTimeout(stalledTimer);
  send({ type: "playback", playback: "blocked" });
}

let mutedByViewer = false;

export function unmute(): void {
  video.muted = false;
  if (video.volume === 0) video.volume = 0.5;
  mutedByViewer = false;
  if (video.paused) void play();
}

export function goLive(): void {
  wantsLive = true;
  player?.goLive();
  if (video.paused) void play();
}

function watchForStall(): void {
  clearTimeout(settledTimer);
  clearTimeout(stalledTimer);
  stalledTimer = window.setTimeout(
    () => send({ type: "player-failed", detail: `no picture for ${STALLED_MAX / 1000} seconds` }),
    STALLED_MAX,
  );
}

function onPlaying(): void {
  clearTimeout(stalledTimer);
  clearTimeout(settledTimer);
  settledTimer = window.setTimeout(() => send({ type: "settled" }), SETTLED_AFTER);
  send({ type: "playback", playback: "playing" });
}

function onWaiting(): void {
  if (!player || video.seeking || model.playback !== "playing") return;
  stalls += 1;
  watchForStall();
  send({ type: "playback", playback: "stalled" });
  // It may be the server; then another one has the same.
  poller.now(nodes.hasOthers ? ANSWER_WITHIN : undefined);
}

/** A picture that is paused, or was never there, is told of by the element. */
function onFlow(flows: boolean): void {
  if (!flows) onWaiting();
  else if (model.playback === "stalled") onPlaying();
}

video.addEventListener("playing", onPlaying);
video.addEventListener("waiting", onWaiting);
video.addEventListener("pause", () => {
  // Ending and closing pause, too.
  if (!player || video.ended || model.playback === "loading") return;
  wantsLive = false;
  video.playbackRate = 1;
  clearTimeout(stalledTimer);
  send({ type: "playback", playback: "paused" });
});
// A session that is closed ends its tracks, whether there is more to come or not.
video.addEventListener("ended", () => {
  if (video.ended && player?.kind !== "webrtc") send({ type: "media-ended" });
});
video.addEventListener("volumechange", () => {
  if (!video.muted) byId("tap-sound", HTMLElement).hidden = true;
});

// The live button asks for the end of the seekable range, where in low latency there is nothing to play yet.
controller.addEventListener(
  "mediaseektoliverequest",
  (event) => {
    event.stopImmediatePropagation();
    goLive();
  },
  { capture: true },
);
controller.addEventListener("mediamuterequest", () => (mutedByViewer = true), { capture: true });
controller.addEventListener("mediaunmuterequest", () => (mutedByViewer = false), { capture: true });
// media-chrome reads this property to tell live from behind.
Object.defineProperty(video, "liveEdgeStart", { get: () => (isAtLiveEdge() ? 0 : Number.POSITIVE_INFINITY) });

// Captions: who switched them on wants them with the next stream, too, which has them a moment after its picture.

const CAPTIONS_KEPT = "tidecast-captions";

video.textTracks.addEventListener("addtrack", ({ track }) => {
  if (track && isCaptions(track) && kept.get(CAPTIONS_KEPT) !== null && !captionsShow(video)) track.mode = "showing";
});
// The controller has done it by now, if there was anything to do.
controller.addEventListener("mediatogglesubtitlesrequest", () => {
  if ([...video.textTracks].some(isCaptions)) kept.set(CAPTIONS_KEPT, captionsShow(video) ? "on" : null);
});

function secondsBehind(): number {
  const latency = player?.edgeLatency() ?? null;
  const target = player?.targetLatency() ?? null;
  if (latency === null || target === null) return 0;
  return Math.max(0, latency - target);
}

function isAtLiveEdge(): boolean {
  return secondsBehind() < LIVE_WITHIN && (wantsLive || player?.kind !== "native");
}

// Choosing what to see

/** Without keeping it: that is for the viewer's own choices. */
function choose(next: Choice): void {
  if (next === choice) return;
  choice = next;
  patience.reset();
  if (player && !player.choose(next)) send({ type: "reopen" });
  renderChoice();
}

function giveUp(): void {
  sayGivenUp(choice, player?.offer ?? NOTHING);
  choose("auto");
}

/** What is gone must not leave the viewer with nothing. */
function watchChoice(): void {
  const expected = model.phase === "live" && model.stream?.state === "live" && model.playback !== "blocked" && !video.paused;
  // A hidden page shows no pictures.
  if (!player || choice === "auto" || !expected || document.hidden) return patience.reset();
  const mark = choice === "audio" ? video.currentTime : countPictures(video, player).frames;
  if (patience.isOver(performance.now(), player.isOnChoice() ? mark : null)) giveUp();
}

/** Where the server has both ways, or the page was opened with one of them. */
function lowLatency(): LowLatency | null {
  const canSwitch = player !== null && "RTCPeerConnection" in window && (nodes.prefer !== null || query.has("via"));
  if (!canSwitch) return null;
  const on = route.prefers === "webrtc";
  return { on, detail: player?.kind === "webrtc" ? "WebRTC" : on ? "HLS for now" : "" };
}

function renderChoice(): void {
  renderQuality(choice, player?.offer ?? NOTHING, player?.shown() ?? null, lowLatency(), !controller.inert);
  const soundOnly = choice === "audio" || !model.stream?.video;
  byId("audio-only", HTMLElement).hidden = !(model.phase === "live" && model.stream?.audio && soundOnly);
}

listen({
  onChoice(next) {
    keepChoice(kept, next);
    choose(next);
  },
  onLowLatency(on) {
    const wanted = on ? "webrtc" : "hls";
    keepWish(kept, wanted);
    route.forget();
    route.want(wanted);
    send({ type: "reopen" });
  },
  onOpen: renderChoice,
});

// Showing

function render(before: Model): void {
  root.dataset.state = model.phase;
  root.dataset.playback = model.playback;

  const notice = noticeFor(model, name);
  controller.inert = notice !== null;
  renderNotice(notice);
  byId("tap-play", HTMLElement).hidden = !(model.phase === "live" && model.playback === "blocked");
  if (model.phase !== "live") byId("tap-sound", HTMLElement).hidden = true;
  renderChoice();
  const wasThere = before.phase === "live" && noticeFor(before, name) === null;
  const saying = notice ? `${notice.title}. ${notice.text}` : wasThere ? null : "The stream is live.";
  if (saying !== null) setText("announcer", saying);
  surroundings.render(model, before);
}

function renderNotice(notice: Notice | null): void {
  const box = byId("notice", HTMLElement);
  box.hidden = notice === null;
  if (!notice) return;
  byId("notice-mark", HTMLElement).dataset.mark = notice.mark;
  setText("notice-title", notice.title);
  setText("notice-text", notice.text);
  byId("retry", HTMLElement).hidden = !notice.retry;
  renderCountdown();
}

function renderCountdown(): void {
  const left = retryAt === null ? null : Math.ceil((retryAt - performance.now()) / 1000);
  setText("notice-next", left === null ? "" : left > 0 ? `Trying again in ${left} s` : "Trying again…");
}

function renderLive(): void {
  const behind = isAtLiveEdge() ? 0 : Math.round(secondsBehind());
  setText("behind", behind > 0 ? `${behind} s behind` : "");
}

export function stats(): Stats {
  return collect({ video, player, stream: model.stream, choice, stalls, firstPicture });
}

export function request(type: string): void {
  controller.dispatchEvent(new CustomEvent(type, { bubbles: true, composed: true }));
}

export function changeVolume(by: number): void {
  video.volume = Math.min(1, Math.max(0, video.volume + by));
  if (by > 0) unmute();
}

byId("retry", HTMLElement).addEventListener("click", retry);
byId("tap-play", HTMLElement).addEventListener("click", () => void play());
byId("tap-sound", HTMLElement).addEventListener("click", unmute);

/** Shows this stream from now on. */
export function openStage(stream: StreamName, around: Partial<Surroundings>): void {
  name = stream;
  surroundings = { ...surroundings, ...around };
  window.tidecast = {
    get hls() {
      return player?.hls ?? null;
    },
    video,
    stats,
  };
  const told = nodes.load();
  let asked = "";
  poller = new Poller<Stream>(() => (asked = nodes.origin) + streamAddress(name), {
    onAnswer: (answer) => {
      // Of one that has been left meanwhile; the other has yet to be asked.
      if (asked !== nodes.origin) return;
      nodes.answered(answer.drained);
      const stream = { ...answer, playlist: nodes.origin + answer.playlist };
      // How it is to be played has to be known first.
      void told.then(() => send({ type: "answer", stream }));
    },
    onFailure: (status) => {
      if (asked !== nodes.origin) return;
      if (isNodeTrouble(status) && nodes.next()) poller.now();
      send({ type: "poll-failed", status });
    },
    settled: () => isSettled(model),
    // As sound, or in a picture of its own.
    wantedHidden: () => player !== null && !video.paused,
  });
  render(model);
  poller.now();
  setInterval(() => {
    if (wantsLive) player?.keepUp(model.stream?.state === "live");
    renderLive();
    watchChoice();
    renderChoice();
    if (retryAt !== null) renderCountdown();
    surroundings.tick();
  }, TICK);
}
