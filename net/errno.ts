/**
 * Which errno an error of the platform stands for, and how Go says it. Deno
 * shows it by `code`, by class alone, or (ENFILE, EPROTO, ENETDOWN, 2.9.6) only
 * by strerror's text.
 *
 * What an errno means is said where it matters: to an accept in
 * accept_errors.ts, to a trace in dial_trace.ts, to a connection in wire.ts, to
 * a wildcard in bind.ts, to another try in target.ts, and to `temporary` in
 * errors.ts. A new one may belong in any of them, and in testing/errno.ts.
 *
 * @module
 */

/** The text for an errno, as strerror(3) and Go have it. */
const ERRNO_TEXT: { readonly [code: string]: string } = {
  EACCES: "permission denied",
  EADDRINUSE: "address already in use",
  EADDRNOTAVAIL: "cannot assign requested address",
  EAFNOSUPPORT: "address family not supported by protocol",
  ECONNABORTED: "software caused connection abort",
  ECONNREFUSED: "connection refused",
  ECONNRESET: "connection reset by peer",
  EHOSTDOWN: "host is down",
  EHOSTUNREACH: "no route to host",
  EINVAL: "invalid argument",
  EMFILE: "too many open files",
  ENETDOWN: "network is down",
  ENETUNREACH: "network is unreachable",
  ENFILE: "too many open files in system",
  ENOBUFS: "no buffer space available",
  ENOENT: "no such file or directory",
  ENOMEM: "cannot allocate memory",
  ENONET: "machine is not on the network",
  ENOPROTOOPT: "protocol not available",
  ENOSR: "out of streams resources",
  ENOTCONN: "transport endpoint is not connected",
  EPERM: "operation not permitted",
  EPIPE: "broken pipe",
  EPROTO: "protocol error",
  EPROTOTYPE: "protocol wrong type for socket",
  ETIMEDOUT: "connection timed out",
};

/** The same the other way round. */
const TEXT_CODES: ReadonlyMap<string, string> = new Map(
  Object.entries(ERRNO_TEXT).map(([code, text]) => [text, code]),
);

/** Platform classes that stand for one errno, for errors without a `code`. */
const CLASS_CODES: readonly (readonly [new () => Error, string])[] = [
  [Deno.errors.ConnectionRefused, "ECONNREFUSED"],
  [Deno.errors.ConnectionReset, "ECONNRESET"],
  [Deno.errors.ConnectionAborted, "ECONNABORTED"],
  [Deno.errors.NotConnected, "ENOTCONN"],
  [Deno.errors.BrokenPipe, "EPIPE"],
  [Deno.errors.AddrInUse, "EADDRINUSE"],
  [Deno.errors.AddrNotAvailable, "EADDRNOTAVAIL"],
  [Deno.errors.NetworkUnreachable, "ENETUNREACH"],
  [Deno.errors.TimedOut, "ETIMEDOUT"],
  [Deno.errors.PermissionDenied, "EACCES"],
];

/**
 * The errno name of an error, whichever way the platform shows it.
 *
 * @param error Anything that was thrown.
 * @returns `"ECONNREFUSED"` and the like, or `undefined` if it has none.
 */
export function errorCode(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const code = fieldOf(error, "code");
  if (typeof code === "string") return code;
  return CLASS_CODES.find(([type]) => error instanceof type)?.[1] ??
    TEXT_CODES.get(strerror(error) ?? "");
}

/**
 * What Go says for an error's errno; `undefined` if it has none, or has words
 * of its own (a proxy's answer, a policy's), which say more.
 */
export function errnoText(error: Error): string | undefined {
  const code = errorCode(error);
  if (code === undefined || !Object.hasOwn(ERRNO_TEXT, code)) {
    return strerror(error);
  }
  const text = ERRNO_TEXT[code]!;
  const message = messageOf(error);
  // Deno's "(os error 111)", rustls's "connection reset", node:net's
  // "read ECONNRESET". (If there is an address, it says more: a proxy's.)
  const platforms = message.includes("(os error ") ||
    text.includes(message.toLowerCase()) ||
    /^[a-z]+ [A-Z]+$/.test(message) && message.endsWith(` ${code}`);
  return platforms ? text : undefined;
}

/** The system's own words, without the runtime's `(os error 111)`. */
function strerror(error: Error): string | undefined {
  const text = /^(.*) \(os error \d+\)$/.exec(messageOf(error))?.[1];
  return text && lowerFirst(text);
}

/** An error's message; nothing if it is not a text. */
export function messageOf(error: Error): string {
  const message = fieldOf(error, "message");
  return typeof message === "string" ? message : "";
}

/** A field of an error; nothing if an odd one has a getter that throws. */
export function fieldOf(
  error: Error & { code?: unknown; op?: unknown },
  name: "cause" | "code" | "message" | "name" | "op",
): unknown {
  try {
    return error[name];
  } catch {
    return undefined;
  }
}

/** Lowers the first letter: glibc writes a capital, Go never does. */
export function lowerFirst(text: string): string {
  return text.slice(0, 1).toLowerCase() + text.slice(1);
}
