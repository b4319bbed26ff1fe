import type { Conn } from "./conn.ts";
import { tolerate } from "./wire.ts";

/**
 * The reading half of `conn` as a byte stream: it reads when it is pulled,
 * never ahead, so that it can be mixed with `read()`.
 */
export function readableOf(
  conn: Conn,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const chunks = conn[Symbol.asyncIterator]();
  const stream = new ReadableStream({
    type: "bytes",
    async pull(controller) {
      const { byobRequest } = controller;
      if (byobRequest) {
        const n = await conn.read(byobRequest.view as Uint8Array<ArrayBuffer>);
        if (n === null) controller.close();
        byobRequest.respond(n ?? 0);
      } else {
        const { done, value } = await chunks.next();
        if (!done) return controller.enqueue(value);
        controller.close();
        // Whoever pulled may have let go, and a BYOB reader wait in its place.
        controller.byobRequest?.respond(0);
      }
    },
    cancel: () => conn.close(),
  }, { highWaterMark: 0 });
  const pipeTo = stream.pipeTo.bind(stream);
  stream.pipeTo = (to, options) => {
    // Everybody hears of a pipe's end that closes the connection, and of no
    // other: that it could not start is for the caller alone.
    const heard = to instanceof WritableStream && !to.locked &&
      !stream.locked && !options?.preventCancel;
    const piped = pipeTo(to, options);
    return heard ? tolerate(piped) : piped;
  };
  return stream;
}

/** The writing half of `conn` as a stream. */
export function writableOf(conn: Conn): WritableStream<Uint8Array> {
  return new WritableStream({
    // The signal, since `abort()` would wait for a write that may be stuck.
    start({ signal }) {
      signal.addEventListener("abort", () => conn.close());
    },
    write: async (chunk) => void await conn.write(chunk),
    close: () => conn.closeWrite(),
  });
}
