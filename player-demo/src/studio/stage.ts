// The picture and the sound before they are sent: which devices, how they look and sound here, and changing them at any time.

import { byId, part, setText } from "../dom.ts";
import * as capture from "./capture.ts";
import { Meter } from "./meter.ts";
import { Mixer } from "./mixer.ts";
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
  /** What is sent. Always the same; its tracks come and go. */
  readonly media = new MediaStream();
  private microphone: MediaStreamTrack | null = null;
  /** The screen's sound, which is sent beside the microphone's. */
  private screenSound: MediaStreamTrack | null = null;
  private readonly mixer = new Mixer();
  private facing: capture.Facing = "user";
  private source: "camera" | "screen" | null = null;
  private busy = false;
  private isSilent = false;
  private readonly meter = new Meter((level, silent) => {
    showLevel("meter-bar", level);
    this.isSilent = silent;
    this.sayHowItSounds();
  });
  private readonly screenMeter = new Meter((level) => showLevel("screen-meter-bar", level));

  constructor(private readonly handlers: StageHandlers) {
    preview.addEventListener("resize", () => {
      byId("stage", HTMLElement).toggleAttribute("data-upright", preview.videoHeight > preview.videoWidth);
    });
    buttons("open").addEventListener("click", () => void this.try("camera", () => this.openDevices()));
    buttons("back").addEventListener("click", () => void this.try("camera", () => this.openCamera(null)));
    buttons("screen").addEventListener("click", () => void this.try("screen", () => this.openScreen()));
    buttons("flip").addEventListener("click", () => void this.try("camera", () => this.flip()));
    buttons("mute").addEventListener("click", () => toggle(this.microphone, "mute"));
    buttons("mute-screen").addEventListener("click", () => toggle(this.screenSound, "mute-screen"));
    buttons("hide").addEventListener("click", () => toggle(this.track("video"), "hide"));
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
    if (audio) this.putMicrophone(audio);
    if (video) this.put("video", video);
  }

  private async openCamera(device: { id: string } | { facing: capture.Facing } | null): Promise<void> {
    // Most phones open one camera at a time.
    if (this.source === "camera") this.track("video")?.stop();
    try {
      const media = await navigator.mediaDevices.getUserMedia({ video: capture.cameraOf(this.quality, device) });
      this.source = "camera";
      this.put("video", media.getVideoTracks()[0] ?? null);
      this.putScreenSound(null);
    } catch (error) {
      if (this.source === "camera") this.put("video", null);
      throw error;
    }
  }

  private async openMicrophone(id: string | null): Promise<void> {
    const media = await navigator.mediaDevices.getUserMedia({ audio: capture.microphoneOf(id) });
    this.putMicrophone(media.getAudioTracks()[0] ?? null);
  }

  private async openScreen(): Promise<void> {
    const { video, audio } = await capture.openScreen(this.quality);
    this.source = "screen";
    this.put("video", video);
    this.putScreenSound(audio);
    if (this.microphone) return;
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
    if (before !== track) {
      if (before) this.media.removeTrack(before);
      if (track) this.media.addTrack(track);
      if (kind === "video") {
        before?.stop();
        // What is hidden stays so, whichever camera it is.
        if (before && track) track.enabled = before.enabled;
        track?.addEventListener("ended", () => this.track("video") === track && this.pictureEnded());
      }
      this.handlers.onTrack(kind, track);
    }
    this.show();
  }

  private putMicrophone(track: MediaStreamTrack | null): void {
    const before = this.microphone;
    if (before !== track) before?.stop();
    // What is muted stays so, whichever microphone it is.
    if (before && track) track.enabled = before.enabled;
    this.microphone = track;
    track?.addEventListener("ended", () => this.microphone === track && this.microphoneEnded());
    this.meter.follow(track);
    this.sendSound();
  }

  private putScreenSound(track: MediaStreamTrack | null): void {
    if (this.screenSound !== track) this.screenSound?.stop();
    this.screenSound = track;
    buttons("mute-screen").setAttribute("aria-pressed", "false");
    track?.addEventListener("ended", () => this.screenSound === track && this.putScreenSound(null));
    this.screenMeter.follow(track);
    this.sendSound();
  }

  private sendSound(): void {
    this.put("audio", this.mixer.mix([this.microphone, this.screenSound].filter((track) => track !== null)));
    this.sayHowItSounds();
  }

  private sayHowItSounds(): void {
    const { microphone, screenSound } = this;
    const voice = !microphone ? "none" : !microphone.enabled ? "muted" : this.isSilent ? "silent" : "heard";
    const shared = this.source !== "screen" ? null : !screenSound ? "none" : screenSound.enabled ? "heard" : "muted";
    setText("meter-words", words.sound(voice, shared));
  }

  // Unplugged, taken away by the system, or not shared any more: nothing else is turned on in its place unasked.

  private microphoneEnded(): void {
    this.putMicrophone(null);
    this.askWhatInstead("The microphone is gone.");
  }

  private pictureEnded(): void {
    const isScreen = this.source === "screen";
    this.source = null;
    this.put("video", null);
    if (isScreen) this.putScreenSound(null);
    this.askWhatInstead(isScreen ? "The screen is not shared any more." : "The camera is gone.");
  }

  private askWhatInstead(what: string): void {
    this.complain(`${what} Choose what to send instead.`);
    void this.list();
  }

  private show(): void {
    const [video, audio] = [this.track("video"), this.track("audio")];
    // Not before: a video that waits for its first picture holds up the page's load event.
    preview.srcObject ??= this.media;
    byId("stage-empty", HTMLElement).hidden = video !== null;
    setText("stage-words", audio ? "Sound only." : "Viewers see nothing until you go live.");
    buttons("mute").disabled = this.microphone === null;
    for (const id of ["screen-meter", "mute-screen"]) byId(id, HTMLElement).hidden = this.screenSound === null;
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
    fill(microphoneSelect, await capture.devices("audioinput"), this.microphone);
    buttons("flip").hidden = !(touch.matches && cameras.length > 1 && this.source === "camera");
  }
}

function showLevel(id: string, level: number): void {
  byId(id, HTMLElement).style.clipPath = `inset(0 ${((1 - level) * 100).toFixed(1)}% 0 0)`;
}

function toggle(track: MediaStreamTrack | null, id: string): void {
  if (!track) return;
  track.enabled = !track.enabled;
  buttons(id).setAttribute("aria-pressed", String(!track.enabled));
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
