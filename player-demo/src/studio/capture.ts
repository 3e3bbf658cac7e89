// Cameras, microphones and screens: what the browser gives, and how to ask for it.

export type Facing = "user" | "environment";

/** A choice of quality: how large the picture is captured, and how much of the line it may take. */
export interface Quality {
  height: number;
  /** Bits per second. */
  bitrateMax: number;
}

/** By the values of the page's list. What live platforms recommend for 30 frames a second, less what WebRTC's encoders waste. */
export const QUALITIES: Record<string, Quality> = {
  low: { height: 360, bitrateMax: 800_000 },
  medium: { height: 480, bitrateMax: 1_200_000 },
  high: { height: 720, bitrateMax: 2_500_000 },
  top: { height: 1080, bitrateMax: 6_000_000 },
};

const FRAME_RATE = 30;

/** Wishes, not conditions: a camera that has another size is better than none. */
export function pictureOf({ height }: Quality): MediaTrackConstraints {
  return { width: { ideal: Math.round((height * 16) / 9) }, height: { ideal: height }, frameRate: { ideal: FRAME_RATE, max: 60 } };
}

/** `device`: the id of one, or which way it looks, or null for the browser's choice. */
export function cameraOf(quality: Quality, device: { id: string } | { facing: Facing } | null): MediaTrackConstraints {
  const picture = pictureOf(quality);
  if (device === null) return picture;
  return "id" in device ? { ...picture, deviceId: { exact: device.id } } : { ...picture, facingMode: device.facing };
}

/** Speech is made cleaner; `id` null for the browser's choice. */
export function microphoneOf(id: string | null): MediaTrackConstraints {
  return { echoCancellation: true, noiseSuppression: true, autoGainControl: true, ...(id ? { deviceId: { exact: id } } : {}) };
}

/** Both, or what there is of them: a machine without a camera can still be heard. */
export async function openDevices(video: MediaTrackConstraints, audio: MediaTrackConstraints): Promise<MediaStream> {
  try {
    return await navigator.mediaDevices.getUserMedia({ video, audio });
  } catch (error) {
    if (!(error instanceof DOMException) || error.name !== "NotFoundError") throw error;
  }
  try {
    return await navigator.mediaDevices.getUserMedia({ video });
  } catch (error) {
    if (!(error instanceof DOMException) || error.name !== "NotFoundError") throw error;
  }
  return navigator.mediaDevices.getUserMedia({ audio });
}

/** Of a window, a tab or a screen, with its sound where the browser and whoever chooses give it: music and films stay as they are. */
export async function openScreen(quality: Quality): Promise<{ video: MediaStreamTrack | null; audio: MediaStreamTrack | null }> {
  const untouched = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  // `systemAudio`: Chromium asks whether to share a whole screen's sound, too (Screen Capture, §5.4).
  const wishes: DisplayMediaStreamOptions & { systemAudio: string } = { video: pictureOf(quality), audio: untouched, systemAudio: "include" };
  const screen = await navigator.mediaDevices.getDisplayMedia(wishes);
  return { video: screen.getVideoTracks()[0] ?? null, audio: screen.getAudioTracks()[0] ?? null };
}

export const canShareScreen = () => typeof navigator.mediaDevices?.getDisplayMedia === "function";

/** What there is to choose from; names are told only after permission was given. */
export async function devices(kind: "videoinput" | "audioinput"): Promise<{ id: string; label: string }[]> {
  const all = await navigator.mediaDevices.enumerateDevices();
  const what = kind === "videoinput" ? "Camera" : "Microphone";
  return all
    .filter((device) => device.kind === kind && device.deviceId !== "")
    .map(({ deviceId, label }, i) => ({ id: deviceId, label: label || `${what} ${i + 1}` }));
}
