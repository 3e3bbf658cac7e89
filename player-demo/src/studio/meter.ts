// How loud the microphone or the screen is, for a bar that moves and for the word that it is silent.

/** Below this nobody speaks: the noise of a room is at -50 dB. */
const FLOOR_DB = -60;
/** A microphone that is on picks up more than this within as long, in milliseconds. */
const SILENT_FOR = 5_000;
/** How fast the bar falls, as a share of it per look; it rises at once, so that no peak is missed. */
const FALL = 0.12;

/** Root mean square of samples in -1…1, as a share of the bar. */
export function level(samples: Float32Array): number {
  const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / Math.max(1, samples.length);
  const decibels = power > 0 ? 10 * Math.log10(power) : Number.NEGATIVE_INFINITY;
  return Math.min(1, Math.max(0, 1 - decibels / FLOOR_DB));
}

export class Meter {
  private context: AudioContext | null = null;
  private source: MediaStreamAudioSourceNode | null = null;
  private analyser: AnalyserNode | null = null;
  private samples = new Float32Array(0);
  private shown = 0;
  private heardAt = 0;

  /** Calls `onLevel` with each picture of the screen. */
  constructor(private readonly onLevel: (level: number, silent: boolean) => void) {}

  follow(track: MediaStreamTrack | null): void {
    this.source?.disconnect();
    this.source = null;
    if (!track) return this.onLevel(0, false);
    if (!this.context) {
      this.context = new AudioContext();
      this.analyser = this.context.createAnalyser();
      this.analyser.fftSize = 1024;
      this.samples = new Float32Array(this.analyser.fftSize);
      this.look();
    }
    void this.context.resume();
    this.source = this.context.createMediaStreamSource(new MediaStream([track]));
    if (this.analyser) this.source.connect(this.analyser);
    this.heardAt = performance.now();
  }

  private look = (): void => {
    requestAnimationFrame(this.look);
    if (!this.source || !this.analyser) return;
    this.analyser.getFloatTimeDomainData(this.samples as Float32Array<ArrayBuffer>);
    const heard = level(this.samples);
    if (heard > 0) this.heardAt = performance.now();
    this.shown = Math.max(heard, this.shown - FALL * this.shown - 0.001);
    this.onLevel(Math.max(0, this.shown), performance.now() - this.heardAt > SILENT_FOR);
  };
}
