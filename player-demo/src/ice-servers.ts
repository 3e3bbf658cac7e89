// The STUN and TURN servers that an answer of WHIP or WHEP names (RFC 9725, §4.6).

/** Of a `Link` header (RFC 8288, §3), as `Headers.get` joins several. */
export function iceServers(link: string | null): RTCIceServer[] {
  const links = (link ?? "").matchAll(/<([^>]*)>((?:\s*;\s*[\w-]+\s*=\s*(?:"[^"]*"|[^\s",;]+))*)/g);
  return Array.from(links, ([, urls = "", list = ""]) => {
    const pairs = list.matchAll(/([\w-]+)\s*=\s*(?:"([^"]*)"|([^\s",;]+))/g);
    const found = new Map(Array.from(pairs, ([, name = "", quoted, plain]) => [name.toLowerCase(), quoted ?? plain ?? ""]));
    const [username, credential] = [found.get("username"), found.get("credential")];
    const server = username === undefined || credential === undefined ? { urls } : { urls, username, credential };
    return found.get("rel") === "ice-server" ? [server] : [];
  }).flat();
}

/** To be called before the offer is the local description: that is when a browser begins to ask the servers it knows. */
export function use(peer: RTCPeerConnection, link: string | null): void {
  const servers = iceServers(link);
  if (servers.length > 0) peer.setConfiguration({ ...peer.getConfiguration(), iceServers: servers });
}
