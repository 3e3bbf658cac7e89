// What the studio says, to people who have never heard of ICE. Pure.

import type { Fault, Phase } from "./machine.ts";

/** Whether a page of this kind is given a camera at all; null if so, else what to do. */
export function unfit(secure: boolean, hasDevices: boolean, hasPeers: boolean, address: URL): string | null {
  if (!secure) {
    const local = `http://localhost${address.port ? `:${address.port}` : ""}${address.pathname}`;
    return (
      "This page is not secure, and browsers give camera and microphone to secure pages only. Open it by https://, " +
      `or on the server itself by ${local}.`
    );
  }
  if (!hasDevices || !hasPeers) {
    return "This browser has no camera for pages, or no WebRTC. A current Chrome, Edge, Firefox or Safari has both.";
  }
  return null;
}

/** Why there is no camera, microphone or screen: the name of the error that the browser gave (Media Capture and Streams, §10). */
export function captureFault(error: string, what: "camera" | "screen"): string {
  switch (error) {
    case "NotAllowedError":
    case "SecurityError":
      return what === "screen"
        ? "The screen was not shared. Choose it again, and say yes when the browser asks."
        : "The browser has no permission for camera and microphone. Allow them beside the page's address, then try again.";
    case "NotFoundError":
    case "OverconstrainedError":
      return "No camera and no microphone was found. Plug one in, or share your screen.";
    case "NotReadableError":
    case "AbortError":
      return "The camera or microphone is in use by another program, or does not answer. Close that program, then try again.";
    default:
      return `Camera and microphone cannot be opened (${error}).`;
  }
}

/** Below the bars: of the microphone, and of the screen while it is shared (null while it is not). */
export function sound(microphone: "none" | "muted" | "silent" | "heard", screen: "none" | "muted" | "heard" | null): string {
  const voice = { none: "", muted: "Muted: viewers do not hear you.", silent: "The microphone is silent. Is it the right one?", heard: "" }[microphone];
  const shared = { none: NO_SCREEN_SOUND, muted: "The screen's sound is muted.", heard: "" }[screen ?? "heard"];
  return [voice, shared].filter((words) => words !== "").join(" ");
}

const NO_SCREEN_SOUND =
  "The screen is shared without its sound. Chrome and Edge share the sound of a tab, and on Windows and newer macOS that of the whole " +
  "screen, if it is ticked where you choose what to share. Firefox and Safari share none.";

export function fault(fault: Fault): string {
  switch (fault.kind) {
    case "unreachable":
      return "The server cannot be reached. Is it running, and are you online?";
    case "lost":
      return "The connection to the server was lost.";
    case "no-udp":
      return (
        `UDP ${fault.port ?? 8189} does not reach this server, so that no picture can be sent. ` +
        "Its firewall must let UDP through to that port; behind NAT it must be forwarded, and webrtc.public set. Some company networks block all UDP."
      );
    case "no-codec":
      return "This browser can encode none of H.264, VP9 and VP8, which the studio sends. A current Chrome, Edge, Firefox or Safari can.";
    case "refused":
      return refused(fault.status, fault.words);
  }
}

function refused(status: number, said: string): string {
  switch (status) {
    case 401:
      return "This is not the publish key of this server. On the server, “tidecast keys show” prints it.";
    case 404:
      return "This server takes no publishers by WebRTC under this name.";
    case 409:
      return "Somebody else is live under this name. Choose another name, or end the other broadcast first.";
    case 429:
      return said || "Too many wrong keys came from your address. Wait a minute.";
    default:
      return said ? `The server says: ${said}` : `The server answered with status ${status}.`;
  }
}

export function badge(phase: Phase): [look: string, text: string] {
  switch (phase.name) {
    case "idle":
      return ["quiet", "Not live"];
    case "live":
      return ["live", "Live"];
    case "connecting":
      return ["busy", phase.attempt === 0 ? "Connecting" : "Reconnecting"];
    case "shaky":
    case "restarting":
    case "waiting":
      return ["alert", "Reconnecting"];
  }
}

/** One line below the badge; "" where there is nothing to say. */
export function phase(phase: Phase): string {
  switch (phase.name) {
    case "connecting":
      return phase.attempt === 0 ? "Asking the server…" : "The connection was lost. Connecting again…";
    case "shaky":
    case "restarting":
      return "The network changed or is silent. Looking for another way; viewers wait.";
    case "waiting":
      return `${fault(phase.fault)} Trying again by itself; viewers wait.`;
    default:
      return "";
  }
}

/** What to tell of the line; null while it is good. `loss` is a share of 1. */
export function line(loss: number | null, limitation: string): string | null {
  if (loss !== null && loss > 0.05) return "Many packets are lost on the way. Choose a lower quality, or come closer to the access point.";
  if (limitation === "cpu") return "This device cannot encode fast enough. Choose a lower quality.";
  if (limitation === "bandwidth") return "Your connection carries less than the chosen quality, so the picture is made simpler.";
  return null;
}
