/**
 * What every server here prints for the harness: first its port; then, if it
 * was started with `--v8-flags=--expose-gc`, at each SIGHUP the bytes on its
 * heap after a garbage collection.
 *
 * @module
 */

declare const gc: undefined | (() => void);

/** Prints the port, and answers to SIGHUP if it can. */
export function announce(port: number): void {
  if (typeof gc !== "undefined") {
    const collect = gc;
    // The first timer makes Deno load 1 MB of its own code: not later, but now.
    clearTimeout(setTimeout(() => {}, 0));
    Deno.addSignalListener("SIGHUP", () => {
      collect();
      console.log(Deno.memoryUsage().heapUsed);
    });
  }
  console.log(port);
}
