// Captions of television (CEA-608), as hls.js 1.7.4 reads them, mended for low latency: its parser forgets everything with each
// part that is loaded, and a caption is shown only once it is known when it ends, which at the live edge is after its beginning.

import { Events, type FragLoadingData, type FragParsingUserdataData, type HlsListeners, TimelineController } from "hls.js";

type Hls = ConstructorParameters<typeof TimelineController>[0];

/** What there is of its parser for the two fields of line 21. */
interface Parser {
  reset(): void;
  /** The one that bytes without a command are for. */
  currentChannel: number;
  /** With a hole at 0: their numbers are 1 and 2. */
  channels: (Channel | null)[];
}

interface Channel {
  /** `null` until a command says what the text that follows is. */
  mode: string | null;
  cueSplitAtTime(time: number): void;
  getHandler(): { dispatchCue(): void };
}

/** Pages of text for those who ask for them, which are no captions. */
const TEXT = "MODE_TEXT";
/** So many pictures may come before one that is shown earlier: encoders make up to three B-frames in a row. */
const REORDERED_MAX = 4;
/** Longer than between two pictures of a film or a camera, in seconds. */
const HOLE = 1;

/** Whether any are on the screen, or would be. */
export function captionsShow({ textTracks }: HTMLVideoElement): boolean {
  return [...textTracks].some((track) => isCaptions(track) && track.mode === "showing");
}

export function isCaptions({ kind }: TextTrack): boolean {
  return kind === "captions" || kind === "subtitles";
}

/** What hls.js names a channel that the playlist had not declared when it was read; its language is known to nobody. */
export const CAPTIONS_NAMES = {
  captionsTextTrack1Label: "Captions",
  captionsTextTrack1LanguageCode: "und",
  captionsTextTrack2Label: "Captions 2",
  captionsTextTrack2LanguageCode: "und",
  captionsTextTrack3Label: "Captions 3",
  captionsTextTrack3LanguageCode: "und",
  captionsTextTrack4Label: "Captions 4",
  captionsTextTrack4LanguageCode: "und",
};

export class LiveCaptions extends TimelineController {
  /** Of the segment that was asked for last. */
  private segment = { cc: -1, sn: -1 };
  /** Time of the picture that was read last. */
  private readUntil = Number.NEGATIVE_INFINITY;
  /** Of the newest pictures, in whose midst others may be shown. */
  private held: FragParsingUserdataData["samples"] = [];

  constructor(private readonly player: Hls) {
    super(player);
    player.off(Events.FRAG_LOADING, this["onFragLoading"], this);
    player.off(Events.FRAG_PARSING_USERDATA, this["onFragParsingUserdata"], this);
    player.on(Events.FRAG_LOADING, this.onLoading, this);
    player.on(Events.FRAG_PARSING_USERDATA, this.onUserdata, this);
  }

  override destroy(): void {
    this.player.off(Events.FRAG_LOADING, this.onLoading, this);
    this.player.off(Events.FRAG_PARSING_USERDATA, this.onUserdata, this);
    super.destroy();
  }

  private get parsers(): Parser[] {
    return [this["cea608Parser1"], this["cea608Parser2"]].filter((parser) => parser !== undefined);
  }

  private readonly onLoading: HlsListeners[Events.FRAG_LOADING] = (_, { frag }: FragLoadingData) => {
    const { cc, sn } = frag;
    if (frag.type !== "main" || typeof sn !== "number") return;
    const goesOn = cc === this.segment.cc && (sn === this.segment.sn || sn === this.segment.sn + 1);
    if (!goesOn) this.startOver();
    this.segment = { cc, sn };
  };

  private readonly onUserdata: HlsListeners[Events.FRAG_PARSING_USERDATA] = (event, data: FragParsingUserdataData) => {
    const first = data.samples[0]?.pts;
    if (first === undefined) return;
    // Loaded again, in another rendition; or what is between was not there.
    if (first <= this.readUntil || first > this.newest() + HOLE) this.startOver();
    const samples = [...this.held, ...data.samples].sort((one, other) => one.pts - other.pts);
    this.held = samples.splice(-REORDERED_MAX);
    const last = samples.at(-1)?.pts;
    if (last === undefined) return;
    this.readUntil = last;
    this["onFragParsingUserdata"](event, { ...data, samples });
    // What is on the screen now is, whatever becomes of it.
    for (const channel of this.parsers.flatMap(({ channels }) => channels)) {
      if (!channel?.mode || channel.mode === TEXT) continue;
      channel.cueSplitAtTime(last);
      channel.getHandler().dispatchCue();
    }
  };

  /** Time of the newest picture that was loaded. */
  private newest(): number {
    return this.held.at(-1)?.pts ?? Number.POSITIVE_INFINITY;
  }

  /** What was read before has no sequel, and the rest of a caption no beginning. */
  private startOver(): void {
    this.readUntil = Number.NEGATIVE_INFINITY;
    this.held = [];
    for (const parser of this.parsers) {
      parser.reset();
      parser.currentChannel = 0;
    }
  }
}
