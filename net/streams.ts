import { discard, failCall, tolerate } from "./calls.ts";
import { type Conn, readerOf, wireOf } from "./conn.ts";
import type { ReadHalf, ReadWaiter } from "./read_half.ts";

/**
 * The reading half of `conn` as a byte stream: it waits for bytes while
 * somebody waits for the stream, and no longer, so that it can be mixed with
 * `read()`.
 */
export function readableOf(
  conn: Conn,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const source = new Source(conn);
  const stream = new ReadableStream(source, { highWaterMark: 0 });
  // After an odd end, elements of more than a byte are left incomplete: a
  // TypeError, and the peer's doing.
  const over = () => source.ended;
  const getReader = stream.getReader.bind(stream) as typeof stream.getReader;
  stream.getReader = ((options) => {
    const reader = getReader(options);
    source.byob = options?.mode === "byob";
    const releaseLock = reader.releaseLock.bind(reader);
    reader.releaseLock = () => {
      releaseLock();
      source.letGo();
    };
    const read = reader.read.bind(reader) as (...args: unknown[]) => never;
    reader.read = (...args: unknown[]) => {
      const reading = read(...args);
      source.resume();
      return reading;
    };
    return unawaited(reader, over, "read", "cancel");
  }) as typeof getReader;
  const pipeTo = stream.pipeTo.bind(stream);
  stream.pipeTo = (to, options) => {
    // Everybody hears of a pipe's end that closes the connection, and of no
    // other: that it could not start is for the caller alone.
    const starts = to instanceof WritableStream && !to.locked && !stream.locked;
    const piped = pipeTo(to, options);
    if (!starts) return piped;
    const ended = piped.finally(() => {
      if (!stream.locked) source.letGo(); // or somebody reads already
    });
    return options?.preventCancel ? ended : tolerate(ended);
  };
  return unawaited(stream, over, "cancel");
}

/** Where the readable stream of a connection has its bytes from. */
class Source implements UnderlyingByteSource {
  /** See the platform's documentation. */
  readonly type = "bytes";
  /** The peer has sent FIN, and everybody knows. */
  ended = false;
  /** Whoever reads has memory of his own. */
  byob = false;
  readonly #conn: Conn;
  #controller!: ReadableByteStreamController;
  #call: PullCall | null = null;
  /**
   * Memory waits of somebody who has let go: until it is answered, the platform
   * does not pull for a reader that brings more.
   */
  #orphaned = false;

  constructor(conn: Conn) {
    this.#conn = conn;
  }

  start(controller: ReadableByteStreamController): void {
    this.#controller = controller;
  }

  pull(): Promise<void> {
    const reader = readerOf(this.#conn);
    const refusal = reader.refusal();
    if (refusal) return Promise.reject(refusal);
    const call = this.#call = new PullCall(this);
    reader.wait(call);
    return call.promise;
  }

  cancel(): void {
    this.#conn.close();
  }

  /** Takes all that there is, or what whoever reads has room for. */
  take(half: ReadHalf): void {
    const controller = this.#controller;
    this.#call = null;
    this.#orphaned = false;
    if (half.unread === 0) {
      this.ended = true;
      controller.close();
      controller.byobRequest?.respond(0);
      return;
    }
    const request = this.byob ? controller.byobRequest : null;
    if (request === null) return controller.enqueue(half.takeChunk());
    request.respond(half.copyTo(request.view as Uint8Array));
  }

  /** Nobody waits for the stream any more: what comes is for whoever does. */
  letGo(): void {
    if (this.#call !== null) {
      readerOf(this.#conn).abandon(this.#call);
      this.#call.end();
      this.#call = null;
      this.#orphaned ||= this.byob;
    }
    this.byob = false;
  }

  /** Somebody reads, for whom the platform may not pull. */
  resume(): void {
    if (!this.#orphaned || !this.byob || this.#call !== null) return;
    this.pull().catch((error) => this.#controller.error(error));
  }
}

/** A stream that waits. */
class PullCall implements ReadWaiter {
  /** See {@linkcode ReadWaiter}. */
  next: ReadWaiter | null = null;
  /** What the platform waits for. */
  readonly promise: Promise<void>;
  /** The stream has all that it gets. */
  readonly end: () => void;
  readonly #source: Source;
  readonly #resolve: (end: void | Promise<void>) => void;
  readonly #reject: (error: unknown) => void;

  constructor(source: Source) {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#source = source;
    this.promise = promise;
    this.#resolve = resolve;
    this.end = resolve;
    this.#reject = reject;
  }

  ready(half: ReadHalf): void {
    try {
      this.#source.take(half);
      this.#resolve();
    } catch (error) {
      this.#reject(error); // see over()
    }
  }

  fail(error: unknown, atOnce = false): void {
    failCall(this.promise, this.#resolve, this.#reject, error, null, atOnce);
  }
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
