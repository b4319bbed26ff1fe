import { errorCode } from "./errno.ts";
import { isPlatformClosed } from "./errors.ts";

/** What an error of accept() means for the loop. */
export type AcceptErrorKind = "closed" | "peer" | "capacity" | "fatal";

/**
 * Trouble with one connection: the list of trio's SocketListener, which is that
 * of accept(2) ("errors ... already pending on the new socket"), and ENOTCONN,
 * which Deno gets from getpeername(2) for a client that has reset.
 */
const PEER_CODES: ReadonlySet<string | undefined> = new Set([
  "ECONNABORTED",
  "ECONNRESET",
  "EHOSTDOWN",
  "EHOSTUNREACH",
  "ENETDOWN",
  "ENETUNREACH",
  "ENONET",
  "ENOPROTOOPT",
  "ENOSR",
  "ENOTCONN",
  "ENOTSUP", // Deno's name for EOPNOTSUPP where they are one number
  "EOPNOTSUPP",
  "EPERM",
  "EPROTO",
  "EPROTONOSUPPORT",
  "ESOCKTNOSUPPORT",
  "ETIMEDOUT",
]);

/** A limit of this process or host: something has to be closed first. */
const CAPACITY_CODES: ReadonlySet<string | undefined> = new Set([
  "EMFILE",
  "ENFILE",
  "ENOBUFS",
  "ENOMEM",
]);

/**
 * Tells errors of accept() apart. On macOS (xnu) EINVAL is a peer's, too: for a
 * client that has reset, getpeername(2) says that before it would say ENOTCONN.
 */
export function acceptErrorKind(
  error: unknown,
  os: typeof Deno.build.os = Deno.build.os,
): AcceptErrorKind {
  if (isPlatformClosed(error)) return "closed";
  // A unix client's name that is not UTF-8; Deno drops the client.
  if (error instanceof Deno.errors.InvalidData) return "peer";
  const code = errorCode(error);
  if (PEER_CODES.has(code)) return "peer";
  if (code === "EINVAL" && os === "darwin") return "peer";
  return CAPACITY_CODES.has(code) ? "capacity" : "fatal";
}
