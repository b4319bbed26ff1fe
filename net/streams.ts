import { discard, tolerate } from "./calls.ts";
import type { Conn } from "./conn.ts";
import { CHUNK_SIZE } from "./read_calls.ts";
import type { ReadHalf, ReadWaiter } from "./read_half.ts";
import type { Watcher, Wire } from "./wire.ts";

/**
 * The reading half of `conn` as a byte stream: it waits for bytes only while
 * somebody waits for the stream, so that it can be mixed with `read()`.
 */
export function readableOf(
  conn: Conn,
  half: ReadHalf,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const source = new Source(conn, half);
  const stream = new ReadableStream(source, { highWaterMark: 0 });
  // If the data ends within an element of several bytes, that is a TypeError,
  // but the peer's doing.
  const over = () => source.ended;
  const getReader = stream.getReader.bind(stream) as typeof stream.getReader;
  stream.getReader = ((options) => {
    const reader = getReader(options);
    source.byob = options?.mode === "byob";
    let holds = true;
    const releaseLock = reader.releaseLock.bind(reader);
    reader.releaseLock = () => {
      releaseLock();
      if (holds) source.letGo();
      holds = false;
    };
    const read = reader.read.bind(reader) as (...args: unknown[]) => never;
    reader.read = (...args: unknown[]) => {
      const [view] = args;
      const room = holds && ArrayBuffer.isView(view) ? view.byteLength : 0;
      const forgotten = room > 0 && source.forgotten;
      const reading = read(...args);
      if (forgotten) source.pullFor(room);
      return reading;
    };
    return unawaited(reader, over, "read", "cancel");
  }) as typeof getReader;
  const pipeTo = stream.pipeTo.bind(stream);
  stream.pipeTo = (to, options) => {
    const free = !stream.locked;
    const piped = pipeTo(to, options);
    if (!free || !stream.locked) return piped; // it could not start
    const unwatch = watches.get(to)?.();
    const ended = piped.finally(() => {
      unwatch?.();
      if (!stream.locked) source.letGo(); // or somebody reads already
    });
    // If a pipe's failure closes the connection, others learn of it, so it may
    // go un-awaited.
    return options?.preventCancel ? ended : tolerate(ended);
  };
  return unawaited(stream, over, "cancel");
}

/** Where the readable stream of a connection gets its bytes. */
class Source implements UnderlyingByteSource, ReadWaiter {
  next: ReadWaiter | null = null;
  before: ReadWaiter | null = null;
  readonly most = CHUNK_SIZE;
  /** Makes it a byte stream. */
  readonly type = "bytes";
  /** The peer has sent FIN, and the stream has been told. */
  ended = false;
  /** The reader brings its own memory. */
  byob = false;
  /** A call has failed, and so will the stream, in this tick or the next. */
  failing = false;
  readonly #conn: Conn;
  readonly #half: ReadHalf;
  #controller!: ReadableByteStreamController;
  /** What the platform waits for. */
  #pulling: PromiseWithResolvers<void> | null = null;
  /** In a pull in place of the platform: how many bytes there is room for. */
  #room = Infinity;

  constructor(conn: Conn, half: ReadHalf) {
    this.#conn = conn;
    this.#half = half;
  }

  start(controller: ReadableByteStreamController): void {
    this.#controller = controller;
  }

  pull(): Promise<void> {
    if (this.#pulling !== null) return this.#pulling.promise;
    const refusal = this.#half.refusal();
    if (refusal) {
      this.failing = true;
      return Promise.reject(refusal);
    }
    const { promise } = this.#pulling = Promise.withResolvers<void>();
    this.#half.wait(this);
    return promise;
  }

  ready(): void {
    const { resolve, reject } = this.#pulling!;
    try {
      this.#take();
      resolve();
    } catch (error) {
      reject(error); // see `over` in readableOf()
    }
  }

  /** Leaves the stack as it is: V8 cannot see who waits for a stream. */
  fail(error: unknown): void {
    this.failing = true;
    this.#pulling!.reject(error);
  }

  cancel(): void {
    return this.#conn.close(); // a subclass's own may be async, and fail
  }

  /** Takes all that there is, or as much as the reader has room for. */
  #take(): void {
    const half = this.#half;
    const controller = this.#controller;
    const most = this.#room;
    this.#pulling = null;
    this.#room = Infinity;
    if (half.unread === 0) {
      this.ended = true;
      controller.close();
      controller.byobRequest?.respond(0);
      return;
    }
    const request = this.byob ? controller.byobRequest : null;
    if (request === null) return controller.enqueue(half.takeChunk());
    const view = request.view as Uint8Array;
    // More than that would stay in the stream.
    request.respond(half.copyTo(view.subarray(0, most)));
  }

  /** Nobody waits for the stream any more: what arrives is for others. */
  letGo(): void {
    if (this.#pulling !== null) {
      this.#half.abandon(this);
      this.#pulling.resolve();
      this.#pulling = null;
    }
    this.byob = false;
  }

  /**
   * Whether the memory of a released reader still waits for bytes. Until it has
   * got some, the platform pulls for no other reader.
   */
  get forgotten(): boolean {
    return this.#pulling === null && !this.failing &&
      this.#controller.byobRequest !== null;
  }

  /** Pulls in place of the platform, for a read with room for so many bytes. */
  pullFor(room: number): void {
    this.#room = room;
    this.pull().catch((error) => this.#controller.error(error));
  }
}

/**
 * How a pipe from one of our streams, waiting for its source, learns that its
 * destination has ended. Other pipes must not: if nobody awaited one, a
 * connection's normal end would be an unhandled rejection, and end the process.
 */
const watches = new WeakMap<WritableStream, () => () => void>();

/** The writing half of `conn` as a stream. */
export function writableOf(
  conn: Conn,
  wire: Wire,
): WritableStream<Uint8Array> {
  let failed = false;
  const sent = async (sending: Promise<unknown>): Promise<void> => {
    try {
      await sending;
    } catch (error) {
      failed ||= !(error instanceof TypeError);
      throw error;
    }
  };
  let fail: Watcher["over"];
  const stream = new WritableStream<Uint8Array>({
    start(controller) {
      const { signal } = controller;
      // By the signal: `abort()` would wait for a write that may be stuck.
      signal.addEventListener("abort", () => {
        failed = true;
        discard(conn);
      });
      fail = (wire, cause) => {
        if (!signal.aborted) controller.error(wire.error("write", cause));
      };
    },
    write: (chunk) => sent(conn.write(bytesOf(chunk))),
    close: () => sent(conn.closeWrite()),
  });
  watches.set(stream, () => {
    const watcher: Watcher = { over: fail };
    wire.watch(watcher);
    return () => wire.unwatch(watcher);
  });
  const over = () => failed || wire.closed || wire.ended !== null;
  const getWriter = stream.getWriter.bind(stream);
  stream.getWriter = () =>
    unawaited(getWriter(), over, "write", "close", "abort");
  return unawaited(stream, over, "close", "abort");
}

/** An ArrayBuffer or any view: the platform's own streams take them, too. */
function bytesOf(chunk: Uint8Array | BufferSource): Uint8Array {
  if (chunk instanceof Uint8Array) return chunk;
  if (chunk instanceof ArrayBuffer) return new Uint8Array(chunk);
  if (ArrayBuffer.isView(chunk)) {
    return new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  }
  throw new TypeError(
    "a chunk must be a Uint8Array; for strings, use a TextEncoderStream",
  );
}

/**
 * Lets methods go un-awaited, like the connection's own. A TypeError still
 * rejects for the caller, since it means wrong use; but not when the stream is
 * over, for that is how the platform says so.
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
