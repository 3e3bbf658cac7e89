// What WHIP needs to know of SDP. Pure.

/** An SDP fragment (RFC 8840, §4.4) for an ICE restart: the new credentials, and the first section of the bundle, which stands for all. */
export function restartFragment(offer: string): string {
  const credentials = ["a=ice-ufrag:", "a=ice-pwd:"].map((begin) => begin + value(offer, begin));
  const section = lines(offer).find((line) => line.startsWith("m=")) ?? "";
  return [...credentials, section, `a=mid:${value(offer, "a=mid:")}`, ""].join("\r\n");
}

/** The server's description as it is after the restart that it answered with `fragment` (RFC 9725, §4.3.3). */
export function restarted(answer: string, fragment: string): string {
  return ["a=ice-ufrag:", "a=ice-pwd:"].reduce((sdp, begin) => {
    return lines(sdp)
      .map((line) => (line.startsWith(begin) ? begin + value(fragment, begin) : line))
      .join("\r\n");
  }, answer);
}

/** The UDP port that the server answers at; null if its answer names none. */
export function udpPort(answer: string): number | null {
  const port = /^a=candidate:\S+ \d+ udp \d+ \S+ (\d+) typ /im.exec(answer)?.[1];
  return port ? Number(port) : null;
}

/** What stands after `begin` in the first line that begins so. */
function value(sdp: string, begin: string): string {
  const line = lines(sdp).find((line) => line.startsWith(begin));
  if (line === undefined) throw new Error(`no ${begin} in the description`);
  return line.slice(begin.length);
}

function lines(sdp: string): string[] {
  return sdp.split(/\r?\n/);
}
