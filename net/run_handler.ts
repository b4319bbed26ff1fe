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

/** What a {@linkcode Handler} is given besides its connection. */
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

/** One run of a handler, as its server sees it. */
export class Context {
  /** The handler has taken the connection over. */
  detached = false;
  /** The handler has ended. */
  ended = false;
  /** What the handler gets; no getters, so that `{ ...given }` has it all. */
  readonly given: HandlerContext;
  readonly #controller = new AbortController();

  /** Calls `onDetach` when the handler takes the connection over. */
  constructor(conn: Conn, onDetach?: () => void) {
    this.given = {
      signal: this.#controller.signal,
      detach: () => {
        if (!this.detached) {
          if (this.ended) {
            throw new TypeError("detach() after the handler's end");
          }
          this.detached = true;
          onDetach?.();
        }
        return conn;
      },
    };
  }

  /** Why the handler was told to end; `undefined` if it was not. */
  get reason(): unknown {
    // Not from `given`, which the handler may change.
    return this.#controller.signal.reason;
  }

  /** Tells the handler to end, unless it has. */
  abort(reason: unknown): void {
    if (!this.ended) this.#controller.abort(reason);
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
    await handler(conn, context.given);
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
