/**
 * A name server on 127.0.0.1 that follows a script: what it answers to each
 * question, when, and whether at all.
 *
 * @module
 */

import { createSocket, type Socket } from "node:dgram";
import { once } from "node:events";

/** Addresses (none: the name exists, but has no such record), or an error. */
export type Reply = string[] | "NXDOMAIN" | "SERVFAIL" | "REFUSED" | "silence";

/** A reply that may be late, or lost. */
export interface Rule {
  /** What to answer. */
  reply: Reply;
  /** It is sent once this has settled. */
  after?: () => Promise<unknown>;
  /** How many packets with this question get lost first. @default {0} */
  lost?: number;
}

/** By question: `"db.test AAAA"`. Whatever is not in it does not exist. */
export type DnsScript = Record<string, Reply | Rule>;

const RCODES = { SERVFAIL: 2, NXDOMAIN: 3, REFUSED: 5 };
const TYPES: Record<number, string> = { 1: "A", 28: "AAAA" };

/** A running server; `await using` stops it. */
export class DnsServer implements AsyncDisposable {
  /** The questions that came, such as `"db.test AAAA"`, lost ones as well. */
  readonly questions: string[] = [];
  readonly #script: DnsScript;
  readonly #socket: Socket;
  readonly #waiting = new Map<string, () => void>();
  #closed = false;

  private constructor(script: DnsScript, socket: Socket) {
    this.#script = script;
    this.#socket = socket;
    socket.on("message", (query, peer) => void this.#answer(query, peer));
  }

  /** Starts one; port 53 is where getaddrinfo looks for it. */
  static async start(script: DnsScript, port = 0): Promise<DnsServer> {
    const socket = createSocket("udp4");
    const server = new DnsServer(script, socket);
    socket.bind(port, "127.0.0.1");
    await once(socket, "listening");
    return server;
  }

  /** Its address, as `Deno.resolveDns` takes it. */
  get nameServer(): { ipAddr: string; port: number } {
    return { ipAddr: "127.0.0.1", port: this.#socket.address().port };
  }

  /** Settles when the question comes, or at once if it has come already. */
  asked(question: string): Promise<void> {
    if (this.questions.includes(question)) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.set(question, resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    const closed = once(this.#socket, "close");
    this.#socket.close();
    await closed;
  }

  async #answer(
    query: Uint8Array,
    peer: { address: string; port: number },
  ): Promise<void> {
    const { end, question, type } = parseQuestion(query);
    this.questions.push(question);
    this.#waiting.get(question)?.();
    const scripted = this.#script[question] ?? "NXDOMAIN";
    const rule = typeof scripted === "object" && "reply" in scripted
      ? scripted
      : { reply: scripted };
    const { after, lost = 0, reply } = rule;
    const count = this.questions.filter((other) => other === question).length;
    if (count <= lost || reply === "silence") return;
    await after?.();
    if (this.#closed) return;
    this.#socket.send(
      response(query, end, type, reply),
      peer.port,
      peer.address,
    );
  }
}

/** RFC 1035, section 4.1.2: labels, type, class; from byte 12 on. */
function parseQuestion(
  query: Uint8Array,
): { end: number; question: string; type: number } {
  const labels: string[] = [];
  let at = 12;
  for (let length; (length = query[at]!) > 0; at += 1 + length) {
    const label = query.subarray(at + 1, at + 1 + length);
    labels.push(new TextDecoder().decode(label));
  }
  const type = query[at + 1]! << 8 | query[at + 2]!;
  const question = `${labels.join(".")} ${TYPES[type] ?? type}`;
  return { end: at + 5, question, type };
}

function response(
  query: Uint8Array,
  end: number,
  type: number,
  reply: Exclude<Reply, "silence">,
): Uint8Array {
  const addresses = Array.isArray(reply) ? reply : [];
  const rcode = Array.isArray(reply) ? 0 : RCODES[reply];
  const header = [query[0]!, query[1]!, 0x81, 0x80 | rcode];
  const counts = [0, 1, 0, addresses.length, 0, 0, 0, 0];
  const records = addresses.flatMap((address) => {
    const data = type === 28 ? ipv6Bytes(address) : ipv4Bytes(address);
    // The name (a pointer to the question's), type, class IN, 60 s, length.
    return [0xc0, 12, 0, type, 0, 1, 0, 0, 0, 60, 0, data.length, ...data];
  });
  const question = query.subarray(12, end);
  return Uint8Array.from([...header, ...counts, ...question, ...records]);
}

function ipv4Bytes(address: string): number[] {
  return address.split(".").map(Number);
}

function ipv6Bytes(address: string): number[] {
  const [head = [], tail = []] = address.split("::").map((half) =>
    half.split(":").filter((group) => group !== "")
  );
  const gap = new Array<string>(8 - head.length - tail.length).fill("0");
  return [...head, ...gap, ...tail].flatMap((group) => {
    const value = parseInt(group, 16);
    return [value >> 8, value & 255];
  });
}
