/**
 * What can go wrong, in Go's words. Every failure of a network call is an
 * {@linkcode OpError}: it says which operation failed, on which network and
 * addresses, and its `cause` says why. The classes below are the causes that
 * this library makes itself; the others are the platform's own errors.
 *
 * @module
 */

import type { Addr } from "./addr.ts";
import { errnoText, errorCode, fieldOf, messageOf } from "./errno.ts";

/** After these, the same call may succeed if tried again (Go: `Temporary`). */
const TEMPORARY_CODES: ReadonlySet<string | undefined> = new Set([
  "EAGAIN",
  "EINTR",
  "EMFILE",
  "ENFILE",
]);

/**
 * Tells whether an error means that our own side was closed: by `close()`, by
 * the signal of `listen()` or `handle()`, or by force in a shutdown. (A call
 * whose own signal aborts rejects with that signal's reason instead.)
 *
 * @param error Anything that was thrown; its causes are looked at too.
 * @returns `true` for a {@linkcode ClosedError}, and for what the platform says
 * of a call on what is closed, or was closed meanwhile: `BadResource`,
 * `Interrupted`.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 * import { isClosed, listen } from "@switchboard/tcp";
 *
 * const listener = await listen("tcp", "127.0.0.1:0");
 * await listener.close();
 * assert(await listener.accept().catch(isClosed));
 * ```
 */
export function isClosed(error: unknown): boolean {
  return someCause(
    error,
    (e) => e.name === "ClosedError" || isPlatformClosed(e),
  );
}

/** Whether Deno says that a resource was closed, before a call or during it. */
export function isPlatformClosed(error: unknown): boolean {
  return error instanceof Deno.errors.BadResource ||
    error instanceof Deno.errors.Interrupted;
}

/**
 * Tests by name, not by class: a program may contain two versions of this
 * library. `field` tells our errors from others of the same name.
 */
export function isNamed(error: unknown, name: string, field: string): boolean {
  return error instanceof Error && fieldOf(error, "name") === name &&
    field in error;
}

/**
 * Tells whether an error means that time ran out: a deadline, a dial timeout,
 * `AbortSignal.timeout()`, ETIMEDOUT, or a name server that did not answer
 * {@linkcode dnsResolver} (the system's resolver does not say).
 *
 * After a deadline a connection is as good as before, unless a write deadline
 * was set too late (see {@linkcode Conn.prototype.write | Conn.write}). With
 * `code` ETIMEDOUT the kernel has given up on the peer, and the connection is
 * gone.
 *
 * @param error Anything that was thrown; its causes are looked at too.
 * @returns `true` if any of them is a timeout.
 *
 * @example
 * ```ts
 * import { assert } from "@std/assert";
 * import { dial, isTimeout } from "@switchboard/tcp";
 *
 * assert(await dial("tcp", "127.0.0.1:80", { timeout: 0 }).catch(isTimeout));
 * ```
 */
export function isTimeout(error: unknown): boolean {
  return someCause(
    error,
    (e) =>
      e.name === "TimeoutError" || errorCode(e) === "ETIMEDOUT" ||
      (e as { timeout?: unknown }).timeout === true,
  );
}

/** What an {@linkcode OpError} is made of; everything is optional. */
export interface OpErrorInit {
  /** What was attempted. @default {"dial"} */
  op?: OpError["op"] | undefined;
  /**
   * The network's name: for a dial or listen as the caller gave it, otherwise
   * `tcp` or `unix`.
   *
   * @default {""}
   */
  network?: string | undefined;
  /** Our own address, for calls on a connection. */
  source?: Addr | undefined;
  /** The peer's address, or the one that was to be opened. */
  addr?: Addr | undefined;
  /** Why it failed. */
  cause?: unknown;
  /** Why it failed, in words. Default: the cause's, as Go prints them. */
  reason?: string | undefined;
  /** For "write": how many bytes the kernel had taken. */
  bytesWritten?: number | undefined;
  /** Whether time ran out. Default: what the cause says. */
  timeout?: boolean | undefined;
}

/**
 * A network call failed. Prints like Go's `net.OpError`:
 * `dial tcp 127.0.0.1:1: connection refused`.
 *
 * @example Branch on what happened, not on the text
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { dial, OpError } from "@switchboard/tcp";
 *
 * try {
 *   await dial("tcp", "127.0.0.1:1");
 * } catch (error) {
 *   if (!(error instanceof OpError)) throw error;
 *   assertEquals(error.code, "ECONNREFUSED");
 *   assertEquals(error.message, "dial tcp 127.0.0.1:1: connection refused");
 * }
 * ```
 */
export class OpError extends Error {
  /** Always `"OpError"`, or the name of a class derived from it. */
  override name = "OpError";
  /** What was attempted. */
  readonly op:
    | "dial"
    | "listen"
    | "accept"
    | "read"
    | "write"
    | "close"
    | "set";
  /**
   * The network's name: for a dial or listen as the caller gave it, otherwise
   * `tcp` or `unix`.
   */
  readonly network: string;
  // Declared, not defined: what is absent must not be printed as undefined.
  /** Our own address, for calls on a connection. */
  declare readonly source?: Addr;
  /** The peer's address, or the one that was to be opened. */
  declare readonly addr?: Addr;
  /** The errno's name if there is one: `"ECONNREFUSED"`. */
  declare readonly code?: string;
  /** Whether time ran out. */
  readonly timeout: boolean;
  /**
   * Go's notion: timeouts, EAGAIN, EMFILE and the like. Others may pass, too,
   * such as ECONNREFUSED and EADDRINUSE.
   */
  readonly temporary: boolean;
  /** For "write": how many bytes the kernel had taken before it failed. */
  declare readonly bytesWritten?: number;

  /**
   * Makes an error that says what failed, where and why.
   *
   * @param init See {@linkcode OpErrorInit}.
   */
  constructor(init: OpErrorInit = {}) {
    const { op = "dial", network = "", source, addr, cause } = init;
    const where = source && addr ? `${source}->${addr}` : source ?? addr ?? "";
    const subject = [op, network, String(where)].filter(Boolean).join(" ");
    super(
      printable(`${subject}: ${init.reason ?? reasonText(cause)}`),
      because(cause),
    );
    this.op = op;
    this.network = network;
    if (source) this.source = source;
    if (addr) this.addr = addr;
    const code = errorCode(cause);
    if (code !== undefined) this.code = code;
    if (init.bytesWritten !== undefined) this.bytesWritten = init.bytesWritten;
    this.timeout = init.timeout ?? isTimeout(cause);
    this.temporary = this.timeout ||
      (isNamed(cause, "DnsError", "hostname") &&
        (cause as DnsError).temporary === true) ||
      (TEMPORARY_CODES.has(code) && !isClosed(cause)) ||
      (op === "accept" && (code === "ECONNRESET" || code === "ECONNABORTED"));
  }
}

/**
 * Our own side was closed. If that was intended, it is no failure: an accept
 * loop just ends. Test for it with {@linkcode isClosed}.
 */
export class ClosedError extends Error {
  /** Always `"ClosedError"`. */
  override name = "ClosedError";

  /** The counterpart of Go's `net.ErrClosed`; the text is the same. */
  constructor() {
    super("use of closed network connection");
  }
}

/**
 * A deadline passed. Its name is the web platform's `TimeoutError`. See
 * {@linkcode isTimeout} for a test, and for when the connection stays usable.
 */
export class DeadlineExceededError extends Error {
  /** Always `"TimeoutError"`, as from `AbortSignal.timeout()`. */
  override name = "TimeoutError";
  /** Always `true`. */
  readonly timeout: true = true;

  /** The counterpart of Go's `os.ErrDeadlineExceeded`; the text is the same. */
  constructor() {
    super("i/o timeout");
  }
}

/** An address that cannot be understood, or that does not fit the network. */
export class AddrError extends Error {
  /** Always `"AddrError"`. */
  override name = "AddrError";
  /** The offending text. */
  readonly addr: string;
  /** What is wrong with it: `missing port in address`. */
  readonly reason: string;

  /**
   * Makes an error that prints as `address 1.2.3.4: missing port in address`.
   *
   * @param reason What is wrong.
   * @param addr The offending text; left out of the message if empty.
   */
  constructor(reason = "", addr = "") {
    super(printable(addr === "" ? reason : `address ${addr}: ${reason}`));
    this.addr = addr;
    this.reason = reason;
  }
}

/** What a {@linkcode DnsError} is made of; everything is optional. */
export interface DnsErrorInit {
  /** The name that was looked up. @default {""} */
  hostname?: string | undefined;
  /** The name server that was asked, if one was named. */
  server?: string | undefined;
  /** Whether the name is known not to exist. @default {false} */
  notFound?: boolean | undefined;
  /** Whether no answer came in time. @default {false} */
  timeout?: boolean | undefined;
  /** Whether another lookup may find it. @default {timeout} */
  temporary?: boolean | undefined;
  /** What happened. Default: `no such host`, `i/o timeout` or the cause's. */
  reason?: string | undefined;
  /** The platform's error. */
  cause?: unknown;
}

/** A name could not be resolved. Prints `lookup nosuch.test: no such host`. */
export class DnsError extends Error {
  /** Always `"DnsError"`. */
  override name = "DnsError";
  /** The name that was looked up. */
  readonly hostname: string;
  /** The name server that was asked, if one was named. */
  declare readonly server?: string;
  /** Whether the name is known not to exist; `false`: we could not find out. */
  readonly notFound: boolean;
  /** Whether no answer came in time. */
  readonly timeout: boolean;
  /**
   * Whether another lookup may find it (as in Go: a timeout, EAI_AGAIN, or a
   * socket that failed).
   */
  readonly temporary: boolean;

  /**
   * Makes an error about one name.
   *
   * @param init See {@linkcode DnsErrorInit}.
   */
  constructor(init: DnsErrorInit = {}) {
    const { hostname = "", server, cause } = init;
    const notFound = init.notFound ?? false;
    const timeout = init.timeout ?? false;
    const reason = init.reason ??
      (notFound ? "no such host" : timeout ? "i/o timeout" : reasonText(cause));
    const where = server === undefined ? "" : ` on ${server}`;
    super(printable(`lookup ${hostname}${where}: ${reason}`), because(cause));
    this.hostname = hostname;
    if (server !== undefined) this.server = server;
    this.notFound = notFound;
    this.timeout = timeout;
    this.temporary = init.temporary ?? timeout;
  }
}

/** A network name that is none of tcp, tcp4, tcp6 and unix. */
export class UnknownNetworkError extends Error {
  /** Always `"UnknownNetworkError"`. */
  override name = "UnknownNetworkError";

  /**
   * Makes an error that prints as `unknown network foo`.
   *
   * @param network The name that was given; case counts.
   */
  constructor(network = "") {
    super(printable(`unknown network ${network}`));
  }
}

/**
 * Why something failed, in the words Go would use, for the end of a message.
 *
 * @param cause Anything that was thrown.
 * @returns One line without the runtime's `(os error 111)`.
 */
export function reasonText(cause: unknown): string {
  let lines = wordsOf(cause).split(/[\r\n]+/);
  if (lines.length > 1) lines = lines.map((line) => line.trim());
  return lines.filter(Boolean).join(" ") || "unknown error";
}

/** `seen` are the errors around it; one may be its own cause. */
function wordsOf(cause: unknown, seen = new Set<unknown>()): string {
  if (cause === undefined) return "unknown error";
  if (!(cause instanceof Error)) {
    if (typeof cause !== "object" || cause === null) return String(cause);
    const { message } = cause as { message?: unknown }; // an ErrorEvent has one
    if (typeof message === "string" && message !== "") return message;
    return Deno.inspect(cause, { breakLength: Infinity, depth: 1 });
  }
  if (isNamed(cause, "OpError", "op") || isNamed(cause, "DialError", "op")) {
    // A dial within a dial: its address says more than the errno. The addresses
    // of a connection within a connection are in the message already.
    const inner = fieldOf(cause, "cause");
    const says = fieldOf(cause, "op") === "dial" || inner === undefined;
    if (says || seen.has(inner)) return messageOf(cause);
    return wordsOf(inner, seen.add(cause).add(inner));
  }
  const name = fieldOf(cause, "name");
  return errnoText(cause) || messageOf(cause) ||
    (typeof name === "object" ? "" : String(name ?? ""));
}

/**
 * Text that may come from a peer, such as its unix name, as a log can print it:
 * a control character would begin a line of its own, or control the terminal;
 * one that changes the direction of text would show the rest reversed.
 */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, (c) => {
    const hex = c.charCodeAt(0).toString(16);
    return hex.length > 2
      ? `\\u${hex.padStart(4, "0")}`
      : `\\x${hex.padStart(2, "0")}`;
  });
}

/** An absent cause must not be printed as `[cause]: undefined`. */
function because(cause: unknown): ErrorOptions {
  return cause === undefined ? {} : { cause };
}

/** Whether `error` or any of its causes matches; they may form a circle. */
export function someCause(
  error: unknown,
  matches: (error: Error) => boolean,
): boolean {
  const seen = new Set<unknown>();
  try {
    while (error instanceof Error && !seen.has(error)) {
      if (matches(error)) return true;
      seen.add(error);
      error = error.cause;
    }
  } catch {
    // A getter has thrown: what it hides matches nothing.
  }
  return false;
}
