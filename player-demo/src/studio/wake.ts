// Keeps the screen on while live: a phone that sleeps stops its camera.

export class Wake {
  private lock: WakeLockSentinel | null = null;
  private wanted = false;

  constructor() {
    // The browser takes it back whenever the page is hidden.
    document.addEventListener("visibilitychange", () => {
      if (this.wanted && !document.hidden) void this.take();
    });
  }

  hold(wanted: boolean): void {
    if (wanted === this.wanted) return;
    this.wanted = wanted;
    if (wanted) return void this.take();
    void this.lock?.release();
    this.lock = null;
  }

  private async take(): Promise<void> {
    try {
      const lock = await navigator.wakeLock?.request("screen");
      if (this.wanted) this.lock = lock ?? null;
      else void lock?.release();
    } catch {
      // On low battery, and in browsers without it: the broadcast does not depend on it.
    }
  }
}
