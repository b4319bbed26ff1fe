import { Alarm } from "./clock.ts";
import { type Conn, readerOf, wireOf, writerOf } from "./conn.ts";

/** How long a process that comes late looks for bytes, at least. */
const MIN_GRACE_MS = 10;

/**
 * Fails all calls on `conn`, now and later, as timed out once no byte has come
 * or gone for `ms` milliseconds. A byte costs a look at the clock.
 *
 * An alarm that is late says that the process stood still, and has not looked
 * at what came meanwhile: it gets as much time again to do so, once.
 *
 * @returns Stops watching, and leaves no timer.
 */
export function watchIdle(conn: Conn, ms: number): () => void {
  const wire = wireOf(conn);
  let due = 0;
  const alarm = new Alarm(wire.clock, () => {
    const late = wire.clock.now() - due;
    due = Infinity;
    if (late > 0) {
      alarm.setIn(Math.min(Math.max(late, MIN_GRACE_MS), ms));
    } else {
      readerOf(conn).deadline.seal();
      writerOf(conn).deadline.seal();
    }
  }, false);
  const watch = () => {
    due = wire.clock.now() + ms;
    alarm.set(due);
  };
  watch();
  wire.activity = watch;
  return () => {
    wire.activity = null;
    alarm.clear();
  };
}
