import { discard, tolerate } from "./calls.ts";
import { type Conn, wireOf } from "./conn.ts";

/**
 * The reading half of `conn` as a byte stream: it reads when it is pulled,
 * never ahead, so that it can be mixed with `read()`.
 */
export function readableOf(
  conn: Conn,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const chunks = conn[Symbol.asyncIterator]();
  let ended = false;
  /** Who waited with memory of his own has let go of it. */
  let letGo = false;
  const stream = new ReadableStream({
    type: "bytes",
    async pull(controller) {
      const { byobRequest } = controller;
      if (byobRequest) {
        const view = byobRequest.view as Uint8Array<ArrayBuffer>;
        letGo = false;
        const n = await conn.read(view);
        // A default reader waits now, whom respond() would not serve.
        if (letGo && n !== null) return controller.enqueue(view.slice(0, n));
        ended = n === null;
        if (ended) controller.close();
        byobRequest.respond(n ?? 0);
      } else {
        const { done, value } = await chunks.next();
        if (!done) return controller.enqueue(value);
        ended = true;
        controller.close();
        // Whoever pulled may have let go, and a BYOB reader wait in its place.
        controller.byobRequest?.respond(0);
      }
    },
    cancel: () => conn.close(),
  }, { highWaterMark: 0 });
  // After an odd end, elements of more than a byte are left incomplete: a
  // TypeError, and the peer's doing.
  const over = () => ended;
  const getReader = stream.getReader.bind(stream) as typeof stream.getReader;
  stream.getReader = ((options) => {
    const reader = getReader(options);
    const releaseLock = reader.releaseLock.bind(reader);
    reader.releaseLock = () => {
      releaseLock();
      letGo = true;
    };
    return unawaited(reader, over, "read", "cancel");
  }) as typeof getReader;
  const pipeTo = stream.pipeTo.bind(stream);
  stream.pipeTo = (to, options) => {
    // Everybody hears of a pipe's end that closes the connection, and of no
    // other: that it could not start is for the caller alone.
    const heard = to instanceof WritableStream && !to.locked &&
      !stream.locked && !options?.preventCancel;
    const piped = pipeTo(to, options);
    return heard ? tolerate(piped) : piped;
  };
  return unawaited(stream, over, "cancel");
}

/** The writing half of `conn` as a stream. */
export function writableOf(conn: Conn): WritableStream<Uint8Array> {
  let failed = false;
  const sent = async (sending: Promise<unknown>): Promise<void> => {
    try {
      await sending;
    } catch (error) {
      failed ||= !(error instanceof TypeError);
      throw error;
    }
  };
  const stream = new WritableStream<Uint8Array>({
    start(controller) {
      const { signal } = controller;
      // The signal, since `abort()` would wait for a write that may be stuck.
      signal.addEventListener("abort", () => {
        failed = true;
        discard(conn);
      });
      // A pipe waits at its source, and would not hear of this end.
      wireOf(conn).watch({
        over(wire, cause) {
          failed = true;
          if (!signal.aborted) controller.error(wire.error("write", cause));
        },
      });
    },
    write: (chunk) => sent(conn.write(chunk)),
    close: () => sent(conn.closeWrite()),
  });
  const over = () => failed;
  const getWriter = stream.getWriter.bind(stream);
  stream.getWriter = () =>
    unawaited(getWriter(), over, "write", "close", "abort");
  return unawaited(stream, over, "close", "abort");
}

/**
 * Makes methods tolerate that nobody awaits them, as the connection's own do.
 * What they say of a wrong use (a TypeError) is still for the caller to hear,
 * but not when the stream is over: then it is how the platform says so.
 */
function unawaited<
  T extends Record<K, (...args: never[]) => Promise<unknown>>,
  K extends string,
>(object: T, over: () => boolean, ...names: K[]): T {
  for (const name of names) {
    const method = object[name].bind(object);
    const tolerant = (...args: never[]) => {
      const { promise, resolve, reject } = Promise.withResolvers<unknown>();
      method(...args).then(resolve, (error) => {
        if (over() || !(error instanceof TypeError)) tolerate(promise);
        reject(error);
      });
      return promise;
    };
    object[name] = tolerant as T[K];
  }
  return object;
}
