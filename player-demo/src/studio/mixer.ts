// One track of sound out of the microphone's and the screen's.

export class Mixer {
  private context: AudioContext | null = null;
  private out: MediaStreamAudioDestinationNode | null = null;
  private sources: MediaStreamAudioSourceNode[] = [];

  /**
   * What to send. A single track stays what it is, and only two are mixed: what the browser does to a voice it does before.
   * The same track for any two, so that viewers hear no break when one of them is another.
   */
  mix(tracks: MediaStreamTrack[]): MediaStreamTrack | null {
    for (const source of this.sources) source.disconnect();
    this.sources = [];
    if (tracks.length < 2) {
      void this.context?.suspend();
      return tracks[0] ?? null;
    }
    this.context ??= new AudioContext();
    this.out ??= this.context.createMediaStreamDestination();
    void this.context.resume();
    const { context, out } = this;
    this.sources = tracks.map((track) => {
      const source = context.createMediaStreamSource(new MediaStream([track]));
      source.connect(out);
      return source;
    });
    return out.stream.getAudioTracks()[0] ?? null;
  }
}
