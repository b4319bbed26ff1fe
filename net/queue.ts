/** Something that can stand in line. */
export interface Link<T> {
  /** Who is behind; `null` at the end and outside of any line. */
  next: T | null;
  /** Who is before; `null` at the head and outside of any line. */
  before: T | null;
}

/**
 * First come, first served. The callers are the links themselves, so that a
 * line of one, which is nearly always the case, allocates nothing.
 */
export class Queue<T extends Link<T>> {
  /** Who is next. */
  head: T | null = null;
  /** Who is last, if there are two at least: a line of one never sets it. */
  #tail: T | null = null;

  /** Puts `item` at the end of the line. */
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

  /** Takes the head out of the line; there must be one. */
  shift(): T {
    const item = this.head!;
    this.head = item.next;
    if (this.head === null) this.#tail = null;
    else this.head.before = null;
    item.next = null;
    return item;
  }

  /** Takes `item` out, wherever it stands; not being there is no error. */
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
