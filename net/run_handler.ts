import type { Conn } from "./conn.ts";
import { closeGently } from "./linger.ts";

/**
 * What to do with one connection. When the handler returns or throws, the
 * connection is closed, so that what was written arrives; the handler need not
 * close it. A promise is awaited; what it resolves to is ignored.
 */
export type Handler = (
  conn: Conn,
  context: HandlerContext,
) => void | Promise<unknown>;

/**
 * What a {@linkcode Handler} is given besides its connection. To pass it on
 * with more, write `{ signal, detach, user }`: a spread would copy neither.
 */
export interface HandlerContext {
  /**
   * Aborts when a shutdown begins, or with the signal of {@linkcode handle}:
   * finish what you are doing and return. It does not abort once the handler
   * has ended, nor for a shutdown once the connection is detached. Each
   * connection has its own signal, so listeners on it need not be removed.
   */
  readonly signal: AbortSignal;
  /**
   * Takes the connection over: it stays open when the handler returns, and
   * limits and shutdowns no longer count it. The caller closes it. Idempotent.
   * After an `idleTimeout` has passed, calls on it keep failing.
   *
   * @returns The connection.
   * @throws {TypeError} If the handler has ended: the connection is closed.
   */
  detach(): Conn;
}

/** One handler's context. Its signal is made on first use. */
export class Context implements HandlerContext {
  /** The handler has taken the connection over. */
  detached = false;
  /** The handler has ended. */
  ended = false;
  /** Why the handler was told to end; `undefined` if it was not. */
  reason: unknown;
  readonly #conn: Conn;
  readonly #onDetach: (() => void) | undefined;
  #controller: AbortController | null = null;

  /** Calls `onDetach` when the handler takes the connection over. */
  constructor(conn: Conn, onDetach?: () => void) {
    this.#conn = conn;
    this.#onDetach = onDetach;
  }

  /** See {@linkcode HandlerContext.signal}. */
  get signal(): AbortSignal {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.reason !== undefined) this.#controller.abort(this.reason);
    }
    return this.#controller.signal;
  }

  /** Tells the handler to end, unless it has. */
  abort(reason: unknown): void {
    if (this.ended) return;
    this.reason = reason;
    this.#controller?.abort(reason);
  }

  /** See {@linkcode HandlerContext.detach}. */
  get detach(): () => Conn {
    return () => {
      if (!this.detached) {
        if (this.ended) throw new TypeError("detach() after the handler's end");
        this.detached = true;
        this.#onDetach?.();
      }
      return this.#conn;
    };
  }
}

/**
 * Runs a handler, then closes its connection.
 *
 * @param onFailure Gets the handler's error, at once, instead of the caller:
 * the close may wait for the peer for seconds.
 */
export async function runHandler(
  conn: Conn,
  handler: Handler,
  context: Context,
  onFailure?: (error: unknown) => void,
): Promise<void> {
  try {
    await handler(conn, context);
  } catch (error) {
    context.ended = true; // onFailure() may begin a shutdown
    if (!onFailure) {
      try {
        await close(conn, context);
      } catch {
        // From an odd Deno.Conn; the first error counts.
      }
      throw error;
    }
    onFailure(error);
  }
  await close(conn, context);
}

function close(conn: Conn, context: Context): Promise<void> | void {
  context.ended = true;
  if (!context.detached) return closeGently(conn);
}
