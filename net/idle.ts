import { Alarm } from "./clock.ts";
import { type Conn, readerOf, wireOf, writerOf } from "./conn.ts";

/**
 * Fails all calls on `conn`, now and later, as timed out once no byte has come
 * or gone for `ms` milliseconds. A byte costs a look at the clock.
 *
 * @returns Stops watching, and leaves no timer.
 */
export function watchIdle(conn: Conn, ms: number): () => void {
  const wire = wireOf(conn);
  const alarm = new Alarm(wire.clock, () => {
    readerOf(conn).deadline.seal();
    writerOf(conn).deadline.seal();
  }, false);
  alarm.setIn(ms);
  wire.activity = () => alarm.setIn(ms);
  return () => {
    wire.activity = null;
    alarm.clear();
  };
}
