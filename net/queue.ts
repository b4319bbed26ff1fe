/** Something that can stand in line. */
export interface Link<T> {
  /** Who is behind; `null` at the end and outside of any line. */
  next: T | null;
}

/**
 * First come, first served. The callers are the links themselves, so that a
 * line of one, which is nearly always the case, allocates nothing.
 */
export class Queue<T extends Link<T>> {
  /** Who is next. */
  head: T | null = null;
  /** Who is last, if there are two at least: a line of one writes it never. */
  #tail: T | null = null;

  /** Puts `item` at the end of the line. */
  push(item: T): void {
    if (this.head === null) {
      this.head = item;
    } else {
      (this.#tail ?? this.head).next = item;
      this.#tail = item;
    }
  }

  /** Takes the head out of the line; there must be one. */
  shift(): T {
    const item = this.head!;
    this.head = item.next;
    if (this.head === null) this.#tail = null;
    item.next = null;
    return item;
  }

  /** Takes `item` out, wherever it stands; not being there is no error. */
  remove(item: T): void {
    let before: T | null = null;
    for (let at = this.head; at !== null; before = at, at = at.next) {
      if (at !== item) continue;
      if (before === null) this.head = item.next;
      else before.next = item.next;
      if (this.#tail === item) this.#tail = before;
      item.next = null;
      return;
    }
  }
}
