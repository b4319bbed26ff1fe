/**
 * What the compiler would have refused: `deno run` does not check types. Every
 * value is looked at before anything is opened.
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

/** Refuses options that are none: a number, most likely, a timeout. */
export function checkOptions(options: unknown): void {
  if (typeof options === "object" && options !== null) return;
  throw new TypeError(`options are not an object: ${options}`);
}

/**
 * Takes options: a copy that nobody can change, without those that are
 * `undefined`, which hide no default. By name, for what a class's getters give
 * is not the object's own.
 *
 * @param options What a caller gave.
 * @param names All there are: the compiler misses none.
 * @throws {TypeError} If they are no object.
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

/** Refuses what is no signal, a controller above all; it may be absent. */
export function checkSignal(signal: unknown): void {
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new TypeError("signal is not an AbortSignal");
  }
}

/** Refuses what is no clock; it may be absent. */
export function checkClock(clock: Partial<Clock> | null | undefined): void {
  if (clock !== undefined && typeof clock?.monotonic !== "function") {
    throw new TypeError("clock is not a Clock");
  }
}

/** Refuses what is no count of something, of which there is at least one. */
export function checkCount(name: string, value: unknown): void {
  checkType(name, value, "number");
  if (!Number.isInteger(value) || value as number < 1) {
    throw new RangeError(`${name} is not a positive integer: ${value}`);
  }
}

/** Refuses what is no connection or no listener: they have an address. */
export function checkAddress(
  kind: "connection" | "listener",
  value: unknown,
  addr: unknown,
): void {
  if (typeof addr === "object" && addr !== null) return;
  const given = Deno.inspect(value, { breakLength: Infinity, depth: 1 });
  throw new TypeError(`not a ${kind}: ${given}`);
}

/**
 * Refuses what is no connection over TCP or a unix socket.
 *
 * @throws {TypeError} Says what it is.
 * @throws {Deno.errors.NotConnected} If it has no address any more, as a
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
