import { type Conn, readerOf, wireOf, writerOf } from "./conn.ts";
import { DeadlineExceededError } from "./errors.ts";
import { Patience } from "./patience.ts";

/**
 * Once no byte has come or gone for `ms` milliseconds, all calls on `conn`,
 * pending and later ones, and copies from and to it, fail as timed out. A byte
 * costs one look at the clock.
 *
 * @returns A function that stops watching, and leaves no timer.
 */
export function watchIdle(conn: Conn, ms: number): () => void {
  const wire = wireOf(conn);
  const patience = new Patience(wire.clock, ms, () => {
    if (wire.lingering) return;
    readerOf(conn).deadline.expireForGood();
    writerOf(conn).deadline.expireForGood();
    wire.end(new DeadlineExceededError());
  });
  const renew = () => patience.renew();
  wire.activity = renew;
  return () => {
    // A lingering close may have put its own callback there.
    if (wire.activity === renew) wire.activity = null;
    patience.clear();
  };
}
