/**
 * What tests of servers and clients need: no socket, no permission, no real
 * time.
 *
 * @module
 */

export { FakeClock } from "./fake_clock.ts";
export type { Clock } from "../net/clock.ts";
