/**
 * Calls a callback of the user's. If that fails itself, at once or later, its
 * error is printed: it must not reach the code that calls.
 *
 * @param name The callback's name.
 * @param call Calls it.
 */
export async function tell(name: string, call: () => unknown): Promise<void> {
  try {
    await call();
  } catch (thrown) {
    try {
      console.error(`switchboard: ${name} failed:`, thrown);
    } catch {
      // The log's disk may be full, say: there is nobody left to tell.
    }
  }
}
