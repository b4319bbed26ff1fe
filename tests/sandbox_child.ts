/**
 * A child process of sandbox_test.ts, with the permissions that the test is
 * about: makes the dials of its argument, and prints a line of JSON for each.
 */
import {
  dial,
  DialError,
  type DialOptions,
  dnsResolver,
  type Network,
  OpError,
  systemResolver,
} from "../mod.ts";

/** One dial. */
export interface Dial {
  network?: Network;
  address: string;
  /** Addresses that a resolver gives, or one of this module's resolvers. */
  resolve?: string[] | "system" | "dns" | "dns 127.0.0.1";
  /** With a connector that needs no permission. */
  connect?: boolean;
  /** Milliseconds for all of it. */
  timeout?: number;
  /** Whether the grant is revoked as soon as the dial has begun. */
  revoked?: boolean;
}

/** How it went. */
export interface Outcome {
  mode?: "race" | "native";
  /** `127.0.0.1:80 denied`. */
  attempts?: string[];
  error?: string;
  /** The last of the causes: its class, which is the runtime's. */
  cause?: string;
}

/** A fake connection; nobody reads or writes it. */
const connection = {
  localAddr: { transport: "tcp", hostname: "127.0.0.1", port: 1 },
  remoteAddr: { transport: "tcp", hostname: "127.0.0.1", port: 2 },
  close() {},
} as unknown as Deno.Conn;

const resolvers = {
  "system": systemResolver,
  "dns": dnsResolver(),
  "dns 127.0.0.1": dnsResolver({ nameServer: { ipAddr: "127.0.0.1" } }),
};

function optionsOf({ connect, resolve, timeout }: Dial): DialOptions {
  const options: DialOptions = timeout === undefined ? {} : { timeout };
  if (connect) options.connect = () => Promise.resolve(connection);
  if (typeof resolve === "string") options.resolve = resolvers[resolve];
  else if (resolve) options.resolve = () => Promise.resolve(resolve);
  return options;
}

async function outcomeOf(one: Dial): Promise<Outcome> {
  try {
    const { address, network = "tcp" } = one;
    const dialing = dial(network, address, optionsOf(one));
    if (one.revoked) Deno.permissions.revokeSync({ name: "net" });
    const conn = await dialing;
    conn.close();
    return tell(conn.dialTrace!);
  } catch (error) {
    if (!(error instanceof OpError)) throw error;
    let last: unknown = error;
    while (last instanceof Error && last.cause) last = last.cause;
    return {
      ...error instanceof DialError && tell(error.trace),
      error: error.message,
      cause: (last as Error).name,
    };
  }
}

function tell({ attempts, mode }: DialError["trace"]): Outcome {
  const told = attempts.map(({ addr, outcome }) => `${addr} ${outcome}`);
  return { mode, attempts: told };
}

if (import.meta.main) {
  const dials: Dial[] = JSON.parse(Deno.args[0]!);
  for (const one of dials) {
    console.log(`outcome ${JSON.stringify(await outcomeOf(one))}`);
  }
}
