// What hls.js asks for, at the node that is current. To hls.js all stays where it was at first: it tells playlists apart by their
// addresses, and takes those of answers for bases.

import { type HlsConfig, XhrLoader } from "hls.js";

type Load = Parameters<XhrLoader["load"]>;

interface Request {
  askAnew(): void;
}

export class Requests {
  /** Its origin; null before the first move, while redirects decide. */
  private node: string | null = null;
  private readonly underWay = new Set<Request>();

  /** For hls.js. */
  readonly loader = loaderOf(this.underWay, (url, origin) => this.unmarked(this.node === null ? url : onOrigin(url, origin)));
  readonly setup: NonNullable<HlsConfig["xhrSetup"]> = (xhr, url) => xhr.open("GET", this.at(url), true);

  /** `again`: the mark that is put on each address; null leaves them as they are. */
  constructor(private readonly again: number | null = null) {}

  /** Where that is asked for which hls.js knows by this address. */
  at(address: string): string {
    return this.marked(this.node === null ? address : onOrigin(address, this.node));
  }

  /** By hand: `URLSearchParams` would write a token in another way. The server passes over what it does not know. */
  private marked(address: string): string {
    if (this.again === null) return address;
    return `${address}${address.includes("?") ? "&" : "?"}again=${this.again}`;
  }

  private unmarked(address: string): string {
    return this.again === null ? address : address.replace(/[?&]again=\d+$/, "");
  }

  /** For all that is asked from now on. */
  moveTo(node: string): void {
    this.node = node;
  }

  /** What is under way: hls.js sees answers that took longer, and keeps all that it has. */
  askAnew(): void {
    for (const request of this.underWay) request.askAnew();
  }
}

/** `known`: by what address hls.js knows an answer from `url`, having asked at `origin`. */
function loaderOf(underWay: Set<Request>, known: (url: string, origin: string) => string): typeof XhrLoader {
  return class extends XhrLoader {
    override load(...[context, config, callbacks]: Load): void {
      const { origin } = new URL(context.url);
      underWay.add(this);
      super.load(context, config, {
        ...callbacks,
        onSuccess: (response, ...more) => {
          underWay.delete(this);
          callbacks.onSuccess({ ...response, url: known(response.url, origin) }, ...more);
        },
        onError: (...error) => {
          underWay.delete(this);
          callbacks.onError(...error);
        },
        onTimeout: (...timeout) => {
          underWay.delete(this);
          callbacks.onTimeout(...timeout);
        },
      });
    }

    override abort(): void {
      underWay.delete(this);
      super.abort();
    }

    override destroy(): void {
      underWay.delete(this);
      super.destroy();
    }

    askAnew(): void {
      this.abortInternal();
      this.resetInternalLoader();
      // What the other node took says nothing of the network.
      this.stats.loading.start = performance.now();
      this.loadInternal();
    }
  };
}

/** The same path and query. */
export function onOrigin(address: string, origin: string): string {
  const { pathname, search } = new URL(address, origin);
  return origin + pathname + search;
}
