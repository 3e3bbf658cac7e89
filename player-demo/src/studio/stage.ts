// The picture and the sound before they are sent: which devices, how they look and sound here, and changing them at any time.

import { byId, part, setText } from "../dom.ts";
import * as capture from "./capture.ts";
import { Meter } from "./meter.ts";
import * as words from "./words.ts";

export interface StageHandlers {
  /** There is another track of this kind, or none: what is sent has to follow. */
  onTrack(kind: "video" | "audio", track: MediaStreamTrack | null): void;
}

const preview = byId("preview", HTMLVideoElement);
const cameraSelect = byId("camera", HTMLSelectElement);
const microphoneSelect = byId("microphone", HTMLSelectElement);
const qualitySelect = byId("quality", HTMLSelectElement);
const buttons = (id: string) => byId(id, HTMLButtonElement);
const touch = matchMedia("(pointer: coarse)");

export class Stage {
  /** Always the same; its tracks come and go. */
  readonly media = new MediaStream();
  private facing: capture.Facing = "user";
  private source: "camera" | "screen" | null = null;
  private busy = false;
  private readonly meter = new Meter((level, silent) => {
    byId("meter-bar", HTMLElement).style.clipPath = `inset(0 ${((1 - level) * 100).toFixed(1)}% 0 0)`;
    const audio = this.track("audio");
    const muted = audio?.enabled === false;
    setText("meter-words", !audio ? "" : muted ? "Muted: viewers hear nothing." : silent ? "The microphone is silent. Is it the right one?" : "");
  });

  constructor(private readonly handlers: StageHandlers) {
    preview.addEventListener("resize", () => {
      byId("stage", HTMLElement).toggleAttribute("data-upright", preview.videoHeight > preview.videoWidth);
    });
    buttons("open").addEventListener("click", () => void this.try("camera", () => this.openDevices()));
    buttons("back").addEventListener("click", () => void this.try("camera", () => this.openCamera(null)));
    buttons("screen").addEventListener("click", () => void this.try("screen", () => this.openScreen()));
    buttons("flip").addEventListener("click", () => void this.try("camera", () => this.flip()));
    buttons("mute").addEventListener("click", () => this.toggle("audio", "mute"));
    buttons("hide").addEventListener("click", () => this.toggle("video", "hide"));
    cameraSelect.addEventListener("change", () => void this.try("camera", () => this.openCamera({ id: cameraSelect.value })));
    microphoneSelect.addEventListener("change", () => void this.try("camera", () => this.openMicrophone(microphoneSelect.value)));
    navigator.mediaDevices?.addEventListener?.("devicechange", () => void this.list());
    buttons("screen").hidden = !capture.canShareScreen();
  }

  get quality(): capture.Quality {
    return capture.QUALITIES[qualitySelect.value] ?? { height: 720, bitrateMax: 2_500_000 };
  }

  /** What is captured follows the quality that was chosen. */
  async resize(): Promise<void> {
    try {
      await this.track("video")?.applyConstraints(capture.pictureOf(this.quality));
    } catch {
      // A source of one size only: the encoder makes it smaller.
    }
  }

  track(kind: "video" | "audio"): MediaStreamTrack | null {
    return this.media.getTracks().find((track) => track.kind === kind) ?? null;
  }

  private async openDevices(): Promise<void> {
    const media = await capture.openDevices(capture.cameraOf(this.quality, touch.matches ? { facing: this.facing } : null), capture.microphoneOf(null));
    const [video, audio] = [media.getVideoTracks()[0], media.getAudioTracks()[0]];
    if (video) this.source = "camera";
    if (audio) this.put("audio", audio);
    if (video) this.put("video", video);
  }

  private async openCamera(device: { id: string } | { facing: capture.Facing } | null): Promise<void> {
    // Most phones open one camera at a time.
    if (this.source === "camera") this.track("video")?.stop();
    try {
      const media = await navigator.mediaDevices.getUserMedia({ video: capture.cameraOf(this.quality, device) });
      this.source = "camera";
      this.put("video", media.getVideoTracks()[0] ?? null);
    } catch (error) {
      if (this.source === "camera") this.put("video", null);
      throw error;
    }
  }

  private async openMicrophone(id: string | null): Promise<void> {
    const media = await navigator.mediaDevices.getUserMedia({ audio: capture.microphoneOf(id) });
    this.put("audio", media.getAudioTracks()[0] ?? null);
  }

  private async openScreen(): Promise<void> {
    const screen = await capture.openScreen(this.quality);
    const before = this.track("video");
    this.source = "screen";
    this.put("video", screen);
    before?.stop();
    if (this.track("audio")) return;
    try {
      await this.openMicrophone(null);
    } catch {
      // A screen without a voice is worth showing.
    }
  }

  private async flip(): Promise<void> {
    this.facing = this.facing === "user" ? "environment" : "user";
    await this.openCamera({ facing: this.facing });
  }

  /** One thing at a time; what goes wrong is said in words. */
  private async try(what: "camera" | "screen", open: () => Promise<void>): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    this.complain("");
    try {
      await open();
    } catch (error) {
      this.complain(words.captureFault(error instanceof Error ? error.name : String(error), what));
    } finally {
      this.busy = false;
    }
    await this.list();
  }

  private complain(text: string): void {
    byId("capture-fault", HTMLElement).hidden = text === "";
    setText("capture-fault", text);
  }

  private put(kind: "video" | "audio", track: MediaStreamTrack | null): void {
    const before = this.track(kind);
    if (before && before !== track) {
      this.media.removeTrack(before);
      before.stop();
    }
    if (track) {
      // What is muted stays so, whichever microphone it is.
      if (before) track.enabled = before.enabled;
      this.media.addTrack(track);
      track.addEventListener("ended", () => this.ended(kind, track));
    }
    if (kind === "audio") this.meter.follow(track);
    this.handlers.onTrack(kind, track);
    this.show();
  }

  /** Unplugged, taken away by the system, or not shared any more: nothing else is turned on in its place unasked. */
  private ended(kind: "video" | "audio", track: MediaStreamTrack): void {
    if (this.track(kind) !== track) return;
    const what = kind === "audio" ? "The microphone is gone." : this.source === "screen" ? "The screen is not shared any more." : "The camera is gone.";
    this.put(kind, null);
    this.complain(`${what} Choose what to send instead.`);
    void this.list();
  }

  private toggle(kind: "video" | "audio", id: string): void {
    const track = this.track(kind);
    if (!track) return;
    track.enabled = !track.enabled;
    buttons(id).setAttribute("aria-pressed", String(!track.enabled));
  }

  private show(): void {
    const [video, audio] = [this.track("video"), this.track("audio")];
    // Not before: a video that waits for its first picture holds up the page's load event.
    preview.srcObject ??= this.media;
    byId("stage-empty", HTMLElement).hidden = video !== null;
    setText("stage-words", audio ? "Sound only." : "Viewers see nothing until you go live.");
    buttons("mute").disabled = audio === null;
    buttons("hide").disabled = video === null;
    buttons("back").hidden = this.source !== "screen";
    preview.toggleAttribute("data-mirrored", this.source === "camera" && this.isFront(video));
  }

  private isFront(video: MediaStreamTrack | null): boolean {
    const facing = video?.getSettings().facingMode;
    // Cameras on desks do not say where they look: at whoever sits there.
    return facing === "user" || (!facing && !touch.matches);
  }

  private async list(): Promise<void> {
    const cameras = await capture.devices("videoinput");
    fill(cameraSelect, cameras, this.source === "camera" ? this.track("video") : null);
    fill(microphoneSelect, await capture.devices("audioinput"), this.track("audio"));
    buttons("flip").hidden = !(touch.matches && cameras.length > 1 && this.source === "camera");
  }
}

function fill(select: HTMLSelectElement, devices: { id: string; label: string }[], track: MediaStreamTrack | null): void {
  const current = track?.getSettings().deviceId ?? "";
  const options = devices.map(({ id, label }) => {
    const option = part("option", "", label) as HTMLOptionElement;
    option.value = id;
    return option;
  });
  if (!devices.some(({ id }) => id === current)) options.unshift(part("option", "", devices.length > 0 ? "Choose…" : "None found") as HTMLOptionElement);
  select.replaceChildren(...options);
  if (current) select.value = current;
  select.disabled = devices.length === 0;
}
