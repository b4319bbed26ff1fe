/**
 * What every server here tells the harness: its port, first; and, started with
 * `--v8-flags=--expose-gc`, the bytes on its heap whenever it gets a SIGHUP,
 * after a garbage collection.
 *
 * @module
 */

declare const gc: undefined | (() => void);

/** Prints the port, and answers to SIGHUP if it can. */
export function announce(port: number): void {
  if (typeof gc !== "undefined") {
    const collect = gc;
    // Deno loads 1 MB of its own code for the first timer, whenever that comes.
    clearTimeout(setTimeout(() => {}, 0));
    Deno.addSignalListener("SIGHUP", () => {
      collect();
      console.log(Deno.memoryUsage().heapUsed);
    });
  }
  console.log(port);
}
