/** What the platform says for an errno: class, strerror(3), number on Linux. */
const ERRNOS = {
  EADDRINUSE: [Deno.errors.AddrInUse, "Address already in use", 98],
  EADDRNOTAVAIL: [
    Deno.errors.AddrNotAvailable,
    "Cannot assign requested address",
    99,
  ],
  EAGAIN: [Deno.errors.WouldBlock, "Resource temporarily unavailable", 11],
  ECONNREFUSED: [Deno.errors.ConnectionRefused, "Connection refused", 111],
  ECONNRESET: [Deno.errors.ConnectionReset, "Connection reset by peer", 104],
  // Those that have no class of their own: Deno gives a plain Error.
  EHOSTUNREACH: [Error, "No route to host", 113],
  EMFILE: [Error, "Too many open files", 24],
  ENFILE: [Error, "Too many open files in system", 23],
  ENOBUFS: [Error, "No buffer space available", 105],
  ENOMEM: [Error, "Cannot allocate memory", 12],
  ENOENT: [Deno.errors.NotFound, "No such file or directory", 2],
  ENOTCONN: [
    Deno.errors.NotConnected,
    "Transport endpoint is not connected",
    107,
  ],
  EPIPE: [Deno.errors.BrokenPipe, "Broken pipe", 32],
} as const;

/** The name of an errno that a network in memory can fail with. */
export type Errno = keyof typeof ERRNOS;

/** Deno's error for an errno; for ENFILE without a code (2.9.6). */
export function platformError(code: Errno): Error {
  const [Class, text, number] = ERRNOS[code];
  const error = new Class(`${text} (os error ${number})`);
  return code === "ENFILE" ? error : Object.assign(error, { code });
}

/** Deno's error for an operation that a `close()` has ended. */
export function interrupted(): Error {
  const error = new Deno.errors.Interrupted("operation canceled");
  return Object.assign(error, { code: "EINTR" });
}

/** Deno's error for an operation that comes after a `close()`. */
export function badResource(): Error {
  return new Deno.errors.BadResource("Bad resource ID");
}
