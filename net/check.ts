/**
 * Refuses what the compiler would have refused: `deno run` does not check
 * types. Every value is checked before anything is opened.
 *
 * @module
 */

import type { Clock } from "./clock.ts";

/** Refuses a value of another type. */
export function checkType(
  name: string,
  value: unknown,
  type: "boolean" | "function" | "number" | "string",
): void {
  const actual: string = typeof value;
  if (actual !== type) throw new TypeError(`${name} is not a ${type}`);
}

/** Refuses an option of another type; it may be absent. */
export function checkOption(
  name: string,
  value: unknown,
  type: "boolean" | "function" | "number",
): void {
  if (value !== undefined) checkType(name, value, type);
}

/** Refuses options that are not an object: most likely a number, a timeout. */
export function checkOptions(options: unknown): void {
  if (options instanceof AbortSignal) {
    throw new TypeError("a signal in place of options: pass { signal }");
  }
  if (typeof options === "object" && options !== null) return;
  throw new TypeError(`options are not an object: ${options}`);
}

/** Options of a call that a signal may end. */
interface Abortable {
  signal?: AbortSignal;
}

/** The signal in a call's options; refuses anything else. */
export function takeSignal(options?: Abortable): AbortSignal | undefined {
  const signal = options?.signal;
  if (signal !== undefined) checkSignal(signal);
  else if (options !== undefined) checkOptions(options);
  return signal;
}

/** Why a read or a write is refused, whose arguments are these. */
export function ioMisuse(p: unknown, options?: Abortable): unknown {
  if (!(p instanceof Uint8Array)) return new TypeError("p is not a Uint8Array");
  try {
    takeSignal(options);
    return undefined;
  } catch (error) {
    return error;
  }
}

/**
 * Copies options, so that nobody can change them, without those that are
 * `undefined`, so that these hide no default. It goes by name, since what a
 * class's getters return is not the object's own.
 *
 * @param options What the caller passed.
 * @param names All of them: the compiler sees to that.
 * @throws {TypeError} If `options` is not an object.
 */
export function takeOptions<T extends object>(
  options: T,
  names: Record<keyof T, true>,
): T {
  checkOptions(options);
  const keys = Object.keys(names) as (keyof T)[];
  const entries = keys.map((name) => [name, options[name]] as const);
  const given = entries.filter(([, value]) => value !== undefined);
  return Object.fromEntries(given) as T;
}

/** Refuses anything but a signal, such as a controller; it may be absent. */
export function checkSignal(signal: unknown): void {
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new TypeError("signal is not an AbortSignal");
  }
}

/** Refuses anything but a clock; it may be absent. */
export function checkClock(clock: Partial<Clock> | null | undefined): void {
  if (clock !== undefined && typeof clock?.monotonic !== "function") {
    throw new TypeError("clock is not a Clock");
  }
}

/** Refuses anything but a positive integer. */
export function checkCount(name: string, value: unknown): void {
  checkType(name, value, "number");
  if (!Number.isInteger(value) || value as number < 1) {
    throw new RangeError(`${name} is not a positive integer: ${value}`);
  }
}

/** How much of a value an error shows: a node:net socket prints 1,200. */
const MAX_SHOWN = 100;

/** Refuses what has no address: it is not a connection or listener. */
function checkAddress(
  kind: "connection" | "listener",
  value: unknown,
  addr: unknown,
): void {
  if (typeof addr === "object" && addr !== null) return;
  const given = Deno.inspect(value, { breakLength: Infinity, depth: 1 });
  throw new TypeError(`not a ${kind}: ${given.slice(0, MAX_SHOWN)}`);
}

/** Refuses anything but a listener: an HTTP server has an address, too. */
export function checkListener(inner: Partial<Deno.Listener>): void {
  const accepts = typeof inner?.accept === "function";
  checkAddress("listener", inner, accepts && inner.addr);
}

/**
 * Refuses anything but a connection over TCP or a unix socket.
 *
 * @throws {TypeError} Says what it was given.
 * @throws {Deno.errors.NotConnected} If it no longer has an address, like a
 * `node:net` socket that was reset.
 */
export function checkStream(inner: Deno.Conn): void {
  checkAddress("connection", inner, inner?.localAddr && inner.remoteAddr);
  checkTransport(inner.localAddr);
  checkTransport(inner.remoteAddr);
}

function checkTransport(addr: Deno.Addr): void {
  const { transport = "tcp" } = addr;
  if (transport === "unix") return;
  if (transport !== "tcp") {
    throw new TypeError(`not a stream address: ${transport}`);
  }
  if (typeof (addr as Deno.NetAddr).hostname === "string") return;
  const given = Deno.inspect(addr, { breakLength: Infinity, depth: 1 });
  throw new Deno.errors.NotConnected(`no address: ${given}`);
}
