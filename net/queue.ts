/** Something that can wait in a queue. */
export interface Link<T> {
  /** The next one behind; `null` at the end and outside of any queue. */
  next: T | null;
  /** The one before; `null` at the head and outside of any queue. */
  before: T | null;
}

/**
 * First come, first served. The callers are the links themselves, so that a
 * queue of one, which is nearly always the case, allocates nothing.
 */
export class Queue<T extends Link<T>> {
  /** The first in the queue. */
  head: T | null = null;
  /** The last, if there are two or more: a queue of one never sets it. */
  #tail: T | null = null;

  /** Puts `item` at the end of the queue. */
  push(item: T): void {
    if (this.head === null) {
      this.head = item;
    } else {
      const last = this.#tail ?? this.head;
      last.next = item;
      item.before = last;
      this.#tail = item;
    }
  }

  /** Takes the head out of the queue; there must be one. */
  shift(): T {
    const item = this.head!;
    this.head = item.next;
    if (this.head === null) this.#tail = null;
    else this.head.before = null;
    item.next = null;
    return item;
  }

  /** Whether more than `n` are in the queue. */
  isLongerThan(n: number): boolean {
    let item = this.head;
    for (; n > 0 && item !== null; n--) item = item.next;
    return item !== null;
  }

  /** Takes `item` out, wherever it stands; if it is in none, nothing. */
  remove(item: T): void {
    if (item === this.head) this.shift();
    const { before, next } = item;
    if (before === null) return;
    before.next = next;
    if (next !== null) next.before = before;
    else this.#tail = before;
    item.next = item.before = null;
  }
}
