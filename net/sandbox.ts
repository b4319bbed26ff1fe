/**
 * What Deno's sandbox allows, asked without ever raising its prompt, and how to
 * word a refusal. `Deno.permissions` answers in 1.5 µs (measured), but throws
 * URIError for a host that no grant could name.
 *
 * @module
 */

/** A state of a permission; "partial" is granted, except for a `--deny-net`. */
export type Grant = Deno.PermissionState | "partial";

/**
 * Asks what the sandbox says about the network, or about one host.
 *
 * @param host `host:port` or a host for all of its ports, as a grant names
 * them; left out, all of the network.
 * @returns "prompt" also for a host that cannot be asked about: the runtime has
 * the last word on that.
 */
export function netGrant(host?: string): Grant {
  const descriptor = host === undefined
    ? { name: "net" } as const
    : { name: "net", host } as const;
  return grant(descriptor) ?? "prompt";
}

/** Whether the network, or one host, is granted: asking raises no prompt. */
export function isGranted(host?: string): boolean {
  return ["granted", "partial"].includes(netGrant(host));
}

/** `undefined` for what cannot be asked about. */
function grant(descriptor: Deno.PermissionDescriptor): Grant | undefined {
  try {
    const { state, partial } = Deno.permissions.querySync(descriptor);
    return partial && state === "granted" ? "partial" : state;
  } catch {
    return undefined;
  }
}

/**
 * Whether the runtime would look a name up, or ask a name server, without a
 * prompt.
 *
 * @param host The name, or the server's `host:port`.
 */
export function mayAsk(host: string): boolean {
  // What no --deny-net names is granted then, even what no grant could name.
  return isGranted() ? netGrant(host) !== "denied" : isGranted(host);
}

/**
 * The runtime's refusal, made by us where asking the runtime could raise a
 * prompt for a host that the caller has not named.
 *
 * @param host `host:port`.
 */
export function notCapable(host: string): Error {
  return new Deno.errors.NotCapable(
    `Requires net access to "${host}", run again with the --allow-net flag`,
  );
}

/** If a flag has a list already, the flag alone changes nothing. */
const UNLISTED = " without a list";

/**
 * Says what would lift a refusal: `run again with
 * --allow-net=example.com:443`.
 *
 * @param subject `host:port` as the caller named it, or a unix socket's path;
 * such a socket takes three grants.
 * @param error The refusal. It may be about an address behind the name.
 * @returns `undefined` if it is not a refusal.
 */
export function deniedReason(
  subject: string | { path: string },
  error: unknown,
): string | undefined {
  if (!(error instanceof Deno.errors.NotCapable)) return undefined;
  if (typeof subject === "object") return unixReason(subject.path);
  // The message is the only place where the runtime says what it wanted.
  const wanted = / net access to "(.+?)"/.exec(error.message)?.[1];
  if (wanted === undefined) return undefined; // a permission broker's words
  const state = grant({ name: "net", host: wanted });
  // Granted and yet refused: a wider --deny-net wins over a narrower grant.
  const forbids = state === "denied"
    ? isForbidden("net")
    : state === "granted" && netGrant() !== "granted";
  if (forbids) {
    return forbidden(
      "--deny-net",
      wanted === subject ? "it" : `it (${wanted})`,
    );
  }
  return `run again with --allow-net${state ? `=${wanted}` : UNLISTED}`;
}

function unixReason(path: string): string | undefined {
  // No grant can name an abstract socket, and it has no file.
  if (path.startsWith("@")) {
    const denied = netGrant() === "denied" && isForbidden("net");
    return denied
      ? forbidden("--deny-net", "it")
      : `run again with --allow-net${UNLISTED}`;
  }
  // For --allow-net, and for the query, the path has to be absolute, without
  // symbolic links ($PWD may have some).
  const start = path.startsWith("/") ? "" : `${Deno.cwd()}/`;
  const host = `unix:${start}${path}`;
  const missing: string[] = [];
  for (
    const [flag, value, descriptor] of [
      ["read", path, { name: "read", path }],
      ["write", path, { name: "write", path }],
      ["net", host, { name: "net", host }],
    ] as const
  ) {
    const state = grant(descriptor);
    if (state === "denied" && isForbidden(flag)) {
      return forbidden(`--deny-${flag}`, "it");
    }
    // Commas separate a flag's values, so none can contain one (2.9.6).
    const named = value.includes(",") ? "" : `=${value}`;
    if (state !== "granted" && state !== "partial") {
      missing.push(`--allow-${flag}${named}`);
    }
  }
  if (missing.length === 0) return undefined; // a permission broker's words
  const rest = missing.every((flag) => flag.includes("=")) ? "" : UNLISTED;
  return `run again with ${missing.join(" ")}${rest}`;
}

/**
 * Whether a "denied" comes from a flag or the user. With no terminal to prompt
 * on (stdin or stderr is none) Deno answers "no" by itself and remembers it,
 * for what was asked about and for that permission as a whole, but for nothing
 * else: then nothing was forbidden, but a grant is missing.
 */
function isForbidden(name: "net" | "read" | "write"): boolean {
  if (canPrompt() || grant({ name }) !== "denied") return true;
  const other = name === "net"
    ? { name, host: "unrelated.invalid:1" }
    : { name, path: "/unrelated.invalid" };
  return grant(other) === "denied";
}

/** A "no" at the prompt and a flag look the same to whoever asks later. */
function forbidden(flag: string, what: string): string {
  const answer = canPrompt() ? ", or an answer at the prompt" : "";
  return `${flag} forbids ${what}${answer}`;
}

/** Whether Deno would ask the user; if not, it answers "no" by itself. */
export function canPrompt(): boolean {
  return Deno.stdin.isTerminal() && Deno.stderr.isTerminal();
}
