// The words that stand in the picture's place while there is none.

import type { StreamName } from "../api.ts";
import { type Model, isWaitingForBroadcaster } from "./machine.ts";

export interface Notice {
  mark: "spinner" | "moon" | "check" | "alert";
  title: string;
  text: string;
  /** Offer to try again at once. */
  retry: boolean;
}

const INTERRUPTED: Notice = {
  mark: "spinner",
  title: "Interrupted",
  text: "The broadcaster's connection was lost. The picture comes back by itself.",
  retry: false,
};

/** Null while the picture has the stage to itself. */
export function noticeFor(model: Model, name: StreamName): Notice | null {
  switch (model.phase) {
    case "live":
      return isWaitingForBroadcaster(model) ? INTERRUPTED : null;
    case "interrupted":
      return INTERRUPTED;
    case "loading":
      return { mark: "spinner", title: "Connecting", text: "", retry: false };
    case "offline":
      return {
        mark: "moon",
        title: `${name.stream} is offline`,
        text: "Stay here: it plays by itself as soon as the broadcast begins.",
        retry: false,
      };
    case "starting":
      return {
        mark: "spinner",
        title: "Starting soon",
        text: model.stream?.reason ?? "The broadcast has begun; the first seconds are being prepared.",
        retry: false,
      };
    case "ended":
      return {
        mark: "check",
        title: "The stream has ended",
        text: [model.stream?.reason, "If it comes back, it plays here by itself."].filter(Boolean).join(" "),
        retry: false,
      };
    case "error":
      return errorNotice(model);
  }
}

function errorNotice(model: Model): Notice {
  switch (model.fault?.kind) {
    case "bad-name":
      return {
        mark: "alert",
        title: "There is nothing at this address",
        text: "Check the address: it ends in /watch/ followed by the application and the stream, for example /watch/live/cam.",
        retry: false,
      };
    case "unsupported":
      if (model.fault.codecs.length > 0) {
        const { codecs } = model.fault;
        return {
          mark: "alert",
          title: `This browser cannot play ${codecs.join(" and ")}`,
          text: codecs.includes("HEVC")
            ? "The broadcast is in HEVC: Safari plays it, and other browsers on devices that decode it in hardware."
            : `The broadcast is in ${codecs.join(" and ")}: a current Chrome, Edge or Firefox plays it.`,
          retry: false,
        };
      }
      return {
        mark: "alert",
        title: "This browser cannot play the stream",
        text: "It has neither Media Source Extensions nor HLS of its own. A current Chrome, Edge, Firefox or Safari plays it.",
        retry: false,
      };
    case "playback":
      return { mark: "alert", title: "Playback stopped", text: `The player could not go on: ${model.fault.detail}.`, retry: true };
    default:
      return {
        mark: "alert",
        title: "The server cannot be reached",
        text: "It may be restarting, or your connection is down. The picture comes back by itself.",
        retry: true,
      };
  }
}
