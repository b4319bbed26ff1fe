import { forget, tolerate } from "./calls.ts";
import { Conn, readerOf, wireOf, writerOf } from "./conn.ts";
import { OpError } from "./errors.ts";
import { Patience } from "./patience.ts";

/**
 * How long a peer may take to close its side after we have closed ours (nginx:
 * 30 s, but 5 s of silence).
 */
const LINGER_MS = 5_000;
/** How much of what it still sends is thrown away meanwhile. */
const LINGER_BYTES = 1024 * 1024;

/** Where unwanted bytes go. Everybody writes here and nobody reads. */
const sink = new Uint8Array(64 * 1024);

/**
 * Closes a connection so that what was written arrives. A close with unread
 * bytes makes the kernel send a reset, which overtakes and destroys data on its
 * way (`closeWrite(); close()` with 64 KiB unread delivered 128 KB of a 1 MiB
 * reply, measured). So this sends FIN and then, unless the peer has closed
 * already, reads until it does, within limits; HTTP servers call that a
 * lingering close (RFC 9112, section 9.6). `close()` cuts it short.
 */
export function closeGently(conn: Conn): Promise<void> | void {
  const { closed, plain } = wireOf(conn);
  if (closed) return;
  // Connections of other kinds may flush, and say goodbye, in closeWrite().
  const short = plain && readerOf(conn).eof && !writerOf(conn).waiting;
  return short ? conn.close() : linger(conn);
}

async function linger(conn: Conn): Promise<void> {
  const wire = wireOf(conn);
  // No deadline: what the handler has left running may move it, either way.
  const patience = new Patience(
    wire.clock,
    LINGER_MS,
    () => tolerate(closeForGood(conn)),
  );
  const cut = new Promise<void>((resolve) => wire.onClose = resolve);
  try {
    // The connections inside it have limits, too.
    for (let c: Deno.Conn = conn; c instanceof Conn; c = wireOf(c).inner) {
      wireOf(c).lingering = true;
      readerOf(c).deadline.liftForGood();
      writerOf(c).deadline.liftForGood();
    }
    // A slow reader may take its time for what the handler did not await.
    const { activity } = wire;
    wire.activity = (direction) => {
      activity?.(direction);
      if (direction === "out") patience.renew();
    };
    await Promise.race([conn.closeWrite(), cut]); // a subclass's own may hang
    let left = LINGER_BYTES;
    while (left > 0) {
      // Not a subclass's own: it may look at others' bytes in there.
      const n = await Conn.prototype.read.call(conn, sink);
      if (n === null) return;
      left -= n;
    }
  } catch (error) {
    // The peer has reset the connection, or made us wait too long, or we were
    // told to hurry: there is nothing left to wait for, and nobody to tell.
    if (!(error instanceof OpError)) throw error;
  } finally {
    try {
      await Promise.race([conn.close(), cut]); // and so may this
    } finally {
      patience.clear();
      closeWires(conn);
    }
  }
}

/**
 * Closes a connection at once. A subclass's own close() may be async, and wait,
 * or fail, before it has closed anything.
 */
export async function closeForGood(conn: Conn): Promise<void> {
  let closing: unknown;
  try {
    closing = conn.close();
  } finally {
    forget(closing); // should a wire's close fail, too
    closeWires(conn);
  }
  await closing;
}

/** A Conn inside may be of such a subclass, too. */
function closeWires(conn: Conn): void {
  const wire = wireOf(conn);
  try {
    wire.close();
  } finally {
    if (wire.inner instanceof Conn) closeWires(wire.inner);
  }
}
