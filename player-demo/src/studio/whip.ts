// The requests of WHIP (RFC 9725): one session of one publisher. The key goes into a header, and nowhere else.

import type { StreamName } from "../api.ts";
import { ANSWER_TIME_MAX } from "./machine.ts";

const SDP = "application/sdp";
const FRAGMENT = "application/trickle-ice-sdpfrag";
/** To what is asked of a session that there is, the server answers at once, or is not there. */
const ANSWER_TIMEOUT = 8_000;

/** The server said no. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    /** The server's, for people; may be empty. */
    readonly words: string,
  ) {
    super(`${status}: ${words}`);
  }
}

export interface Created {
  session: Session;
  /** The server's answer, as SDP. */
  answer: string;
  /** Its STUN and TURN servers, as the header has them. */
  link: string | null;
}

/** @throws {Refused} if the server says no; whatever `fetch` throws if it says nothing. */
export async function publish(name: StreamName, key: string, offer: string): Promise<Created> {
  const address = `/whip/${encodeURIComponent(name.app)}/${encodeURIComponent(name.stream)}`;
  const request = { method: "POST", headers: { "Content-Type": SDP }, body: offer };
  const response = await ask(address, key, request, ANSWER_TIME_MAX);
  const answer = await response.text();
  if (response.status !== 201) throw new Refused(response.status, answer.trim());
  const location = response.headers.get("Location");
  if (!location) throw new Refused(response.status, "the answer names no session");
  return { session: new Session(new URL(location, response.url).href, key), answer, link: response.headers.get("Link") };
}

export class Session {
  constructor(
    private readonly address: string,
    private readonly key: string,
  ) {}

  /** Tells the new credentials and returns the server's; `*`, because a restart does not know what came before (RFC 9725, §4.3.3). */
  async restart(fragment: string): Promise<string> {
    const headers = { "Content-Type": FRAGMENT, "If-Match": "*" };
    const response = await ask(this.address, this.key, { method: "PATCH", headers, body: fragment });
    const answer = await response.text();
    if (response.status !== 200) throw new Refused(response.status, answer.trim());
    return answer;
  }

  /** Ends the programme. A session that is over already, or a server that is gone, is as good. */
  async end(): Promise<void> {
    try {
      await ask(this.address, this.key, { method: "DELETE", keepalive: true });
    } catch {
      // The server waits for its linger, then ends it by itself.
    }
  }
}

function ask(address: string, key: string, request: RequestInit, within = ANSWER_TIMEOUT): Promise<Response> {
  return fetch(address, {
    ...request,
    headers: { ...request.headers, Authorization: `Bearer ${key}` },
    cache: "no-store",
    signal: AbortSignal.timeout(within),
  });
}
