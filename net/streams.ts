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
  const getReader = stream.getReader.bind(stream) as typeof stream.getReader;
  stream.getReader =
    ((options) =>
      unawaited(getReader(options), "read", "cancel")) as typeof getReader;
  const pipeTo = stream.pipeTo.bind(stream);
  stream.pipeTo = (to, options) => {
    // Everybody hears of a pipe's end that closes the connection, and of no
    // other: that it could not start is for the caller alone.
    const heard = to instanceof WritableStream && !to.locked &&
      !stream.locked && !options?.preventCancel;
    const piped = pipeTo(to, options);
    return heard ? tolerate(piped) : piped;
  };
  return unawaited(stream, "cancel");
}

/** The writing half of `conn` as a stream. */
export function writableOf(conn: Conn): WritableStream<Uint8Array> {
  const stream = new WritableStream<Uint8Array>({
    // The signal, since `abort()` would wait for a write that may be stuck.
    start({ signal }) {
      signal.addEventListener("abort", () => conn.close());
    },
    write: async (chunk) => void await conn.write(chunk),
    close: () => conn.closeWrite(),
  });
  const getWriter = stream.getWriter.bind(stream);
  stream.getWriter = () => unawaited(getWriter(), "write", "close");
  return unawaited(stream, "close");
}

/**
 * Makes methods tolerate that nobody awaits them, as the connection's own do.
 * What they say of a wrong use (a TypeError) is still for the caller to hear.
 */
function unawaited<
  T extends Record<K, (...args: never[]) => Promise<unknown>>,
  K extends string,
>(object: T, ...names: K[]): T {
  for (const name of names) {
    const method = object[name].bind(object);
    const tolerant = (...args: never[]) => {
      const { promise, resolve, reject } = Promise.withResolvers<unknown>();
      method(...args).then(resolve, (error) => {
        if (!(error instanceof TypeError)) tolerate(promise);
        reject(error);
      });
      return promise;
    };
    object[name] = tolerant as T[K];
  }
  return object;
}
