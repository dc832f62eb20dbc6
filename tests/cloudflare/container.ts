// ctx.container, as the runtime has it on Cloudflare and workerd alone does not: a real process (machines.py), its signals
// and its port. It fails with the texts that Cloudflare fails with, since @cloudflare/containers reads them.

const EXITED = "container exited with unexpected exit code:";
const CLOSED = "the container is not listening in the TCP address";

/** Where the containers of each object run now: an object that is made anew finds its own running, as on Cloudflare. */
const ADDRESSES = new Map<string, string>();

export class LoopbackContainer {
  running = false;
  /** Every request that reached the container since the last start. */
  asked: string[] = [];
  #address: Promise<string> = Promise.resolve("");
  #ended: Promise<void> = Promise.resolve();

  constructor(
    private readonly machines: string,
    private readonly name: string,
  ) {
    const address = ADDRESSES.get(name);
    if (address !== undefined) this.#follow(Promise.resolve(address));
  }

  start(options?: ContainerStartupOptions): void {
    if (this.running) throw new Error("start() cannot be called on a container that is already running.");
    this.asked = [];
    this.#follow(this.#tell("POST", "start", options?.env ?? {}).then(({ address }) => address as string));
  }

  #follow(address: Promise<string>): void {
    this.running = true;
    this.#address = address;
    this.#ended = this.#end();
    this.#ended.catch(() => undefined); // whoever monitors hears of it
  }

  async #end(): Promise<void> {
    ADDRESSES.set(this.name, await this.#address);
    const { exit } = await this.#tell("GET", "exit");
    ADDRESSES.delete(this.name);
    this.running = false;
    if (exit !== 0) throw new Error(`${EXITED} ${String(exit)}`);
  }

  monitor(): Promise<void> {
    return this.#ended;
  }

  signal(number: number): void {
    void this.#address.then(() => this.#tell("POST", `signal/${number}`));
  }

  async destroy(): Promise<void> {
    this.signal(9);
    await this.#ended.catch(() => undefined);
  }

  getTcpPort(port: number): Pick<Fetcher, "fetch"> {
    return { fetch: (input: RequestInfo | URL, init?: RequestInit) => this.#fetch(port, new Request(input, init)) };
  }

  async #fetch(port: number, request: Request): Promise<Response> {
    const url = new URL(request.url);
    const named = new Headers(request.headers);
    named.set("host", url.host);
    [url.protocol, url.hostname, url.port] = ["http:", await this.#address, String(port)];
    try {
      const answer = await fetch(new Request(new Request(url, request), { headers: named }));
      this.asked.push(new URL(request.url).pathname);
      return answer;
    } catch (error) {
      if (request.signal.aborted) throw error;
      throw new Error(this.asked.length === 0 ? CLOSED : "Network connection lost.", { cause: error });
    }
  }

  async #tell(method: string, path: string, body?: unknown): Promise<Record<string, unknown>> {
    const sent = body === undefined ? {} : { body: JSON.stringify(body) };
    return (await fetch(`${this.machines}/${this.name}/${path}`, { method, ...sent })).json();
  }
}
