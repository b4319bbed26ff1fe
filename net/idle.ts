import { type Conn, readerOf, wireOf, writerOf } from "./conn.ts";
import { DeadlineExceededError } from "./errors.ts";
import { Patience } from "./patience.ts";

/**
 * Fails all calls on `conn`, now and later, and copies from and to it, as
 * timed out once no byte has come or gone for `ms` milliseconds. A byte costs
 * one look at the clock.
 *
 * @returns Stops watching, and leaves no timer.
 */
export function watchIdle(conn: Conn, ms: number): () => void {
  const wire = wireOf(conn);
  const patience = new Patience(wire.clock, ms, () => {
    if (wire.lingering) return;
    readerOf(conn).deadline.seal();
    writerOf(conn).deadline.seal();
    wire.end(new DeadlineExceededError());
  });
  const renew = () => patience.renew();
  wire.activity = renew;
  return () => {
    // A lingering close may have put its own there meanwhile.
    if (wire.activity === renew) wire.activity = null;
    patience.clear();
  };
}
