import { failCall, onAbort } from "./calls.ts";
import type { Link } from "./queue.ts";
import type { WriteHalf } from "./write_half.ts";

const NOTHING = new Uint8Array(0);

/** Who is told how a job ends; a promise need not be awaited. */
type Caller = PromiseWithResolvers<number> | {
  readonly promise?: undefined;
  /** All of its bytes are out: so many. */
  resolve(n: number): void;
  /** It will not go out, or not all of it. */
  reject(error: unknown): void;
};

/** One call that writes, or the FIN after all of them. */
export class WriteJob implements Link<WriteJob> {
  /** See {@linkcode Link}. */
  next: WriteJob | null = null;
  /** See {@linkcode Link}. */
  before: WriteJob | null = null;
  /** The bytes, as long as somebody waits for the job; `null` asks for FIN. */
  bytes: Uint8Array | null;
  /** Whether the bytes are the library's own, unchanged until they are out. */
  readonly owned: boolean;
  /** May abort it. */
  signal: AbortSignal | null = null;
  /** How many bytes the kernel has taken. */
  done = 0;
  /** How many bytes have gone into pieces; FIN counts as one. */
  taken = 0;
  /** How many bytes are to go out. */
  end: number;
  /** Whether nobody waits for it any more. */
  abandoned = false;
  readonly #caller: Caller;
  #unfollow: (() => void) | null = null;

  /** A job that has not begun. */
  constructor(bytes: Uint8Array | null, caller: Caller, owned = false) {
    this.bytes = bytes;
    this.end = bytes === null ? 0 : bytes.length;
    this.owned = owned;
    this.#caller = caller;
  }

  /** Is given up when `signal` aborts. */
  follow(writer: WriteHalf, signal: AbortSignal): void {
    this.signal = signal;
    this.#unfollow = onAbort(signal, () => writer.abandon(this, signal.reason));
  }

  /** All of it is out. */
  resolve(): void {
    this.#unfollow?.();
    this.#caller.resolve(this.end);
  }

  /** Whether the caller has transferred the bytes elsewhere. */
  get detached(): boolean {
    return this.bytes !== null && this.bytes.length < this.end;
  }

  /** Whether its bytes may share a piece with those of others. */
  get shareable(): boolean {
    return this.bytes !== null && !this.owned && !this.detached;
  }

  /** The bytes `done … taken`. */
  part(): Uint8Array {
    const bytes = this.bytes!;
    const size = this.taken - this.done;
    if (size === bytes.length) return bytes;
    // Not subarray(): it calls a constructor, which may be a caller's own.
    return new Uint8Array(bytes.buffer, bytes.byteOffset + this.done, size);
  }

  /**
   * Nobody waits any more; what is under way of it still goes out.
   *
   * @param atOnce See {@linkcode failCall}.
   */
  giveUp(error: unknown, atOnce?: boolean): void {
    this.abandoned = true;
    this.end = this.taken;
    // The piece is a copy; the caller's megabytes can be freed while it waits.
    if (this.bytes !== null && !this.owned) this.bytes = NOTHING;
    this.reject(error, atOnce);
  }

  /** It will not go out, or not all of it. */
  reject(error: unknown, atOnce?: boolean): void {
    this.#unfollow?.();
    const caller = this.#caller;
    if (caller.promise) failCall(caller, error, this.signal, atOnce);
    else caller.reject(error);
  }
}
