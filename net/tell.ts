/**
 * Tells a caller of something by the callback that he gave. What that does
 * wrong itself, at once or later, is printed: it must not reach who tells.
 *
 * @param name Which of his callbacks it is.
 * @param call Calls it.
 */
export async function tell(name: string, call: () => unknown): Promise<void> {
  try {
    await call();
  } catch (thrown) {
    try {
      console.error(`switchboard: ${name} failed:`, thrown);
    } catch {
      // The log's disk is full, say: nobody is left who could be told.
    }
  }
}
