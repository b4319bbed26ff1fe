import {
  assert,
  assertEquals,
  assertFalse,
  assertInstanceOf,
  assertStrictEquals,
  assertStringIncludes,
} from "@std/assert";
import { TcpAddr, UnixAddr } from "../net/addr.ts";
import { errorCode } from "../net/errno.ts";
import {
  AddrError,
  ClosedError,
  DeadlineExceededError,
  DnsError,
  isClosed,
  isTimeout,
  OpError,
  type OpErrorInit,
  reasonText,
  UnknownNetworkError,
} from "../net/errors.ts";

const local = new TcpAddr("127.0.0.1", 4000);
const remote = new TcpAddr("::1", 80);

/** The platform's error, as the runtime makes it. */
function errno(code: string, message = code): Error {
  return Object.assign(new Error(`${message} (os error 1)`), { code });
}

const PRINTED: { [text: string]: OpErrorInit } = {
  // A peer chooses its unix name, and what it says.
  "read unix @srv->@\\x1b[2J\\x0aFAKE: what is \\x9b\\x07?": {
    op: "read",
    network: "unix",
    source: new UnixAddr("@srv"),
    addr: new UnixAddr("\0\x1b[2J\nFAKE"),
    cause: new Error("what is \x9b\x07?"),
  },
  "dial tcp [::1]:80: connection refused": {
    op: "dial",
    network: "tcp",
    addr: remote,
    cause: errno("ECONNREFUSED"),
  },
  "listen tcp 192.0.2.1:0: cannot assign requested address": {
    op: "listen",
    network: "tcp",
    addr: new TcpAddr("192.0.2.1", 0),
    cause: errno("EADDRNOTAVAIL"),
  },
  "accept tcp 127.0.0.1:4000: use of closed network connection": {
    op: "accept",
    network: "tcp",
    addr: local,
    cause: new ClosedError(),
  },
  // Read, write and close may know both ends; with only one there is no arrow.
  "read tcp 127.0.0.1:4000->[::1]:80: i/o timeout": {
    op: "read",
    network: "tcp",
    source: local,
    addr: remote,
    cause: new DeadlineExceededError(),
  },
  "write tcp 127.0.0.1:4000: broken pipe": {
    op: "write",
    network: "tcp",
    source: local,
    cause: errno("EPIPE"),
  },
  "set tcp 127.0.0.1:4000: use of closed network connection": {
    op: "set",
    network: "tcp",
    addr: local,
    cause: new ClosedError(),
  },
  "close tcp6: protocol error": {
    op: "close",
    network: "tcp6",
    cause: errno("EPROTO"),
  },
  // A failure before there is a socket has no address.
  "listen TCP: unknown network TCP": {
    op: "listen",
    network: "TCP",
    cause: new UnknownNetworkError("TCP"),
  },
  "listen: unknown network ": {
    op: "listen",
    cause: new UnknownNetworkError(""),
  },
  "dial tcp: address 1.2.3.4: missing port in address": {
    network: "tcp",
    cause: new AddrError("missing port in address", "1.2.3.4"),
  },
  "dial tcp: missing address": {
    network: "tcp",
    cause: new AddrError("missing address"),
  },
  "dial tcp: lookup nosuch.test: no such host": {
    network: "tcp",
    cause: new DnsError({ hostname: "nosuch.test", notFound: true }),
  },
  "dial unix /run/x.sock: no such file or directory": {
    network: "unix",
    addr: new UnixAddr("/run/x.sock"),
    cause: errno("ENOENT"),
  },
  // A unix socket without a name prints as nothing.
  "read unix ->/run/x.sock: connection reset by peer": {
    op: "read",
    network: "unix",
    source: new UnixAddr(""),
    addr: new UnixAddr("/run/x.sock"),
    cause: errno("ECONNRESET"),
  },
  "read unix /run/x.sock->: connection reset by peer": {
    op: "read",
    network: "unix",
    source: new UnixAddr("/run/x.sock"),
    addr: new UnixAddr(null),
    cause: errno("ECONNRESET"),
  },
  "accept unix: too many open files": {
    op: "accept",
    network: "unix",
    addr: new UnixAddr(""),
    cause: errno("EMFILE"),
  },
  // Where Go has no text: the cause's own, without Deno's "(os error 1)".
  "dial tcp [::1]:80: something new": {
    network: "tcp",
    addr: remote,
    cause: errno("ESOMETHING", "Something new"),
  },
  "dial tcp: gone": { network: "tcp", cause: "gone" },
  "dial tcp: null": { network: "tcp", cause: null },
  "dial tcp: all 2 addresses failed": {
    network: "tcp",
    cause: errno("ECONNREFUSED"),
    reason: "all 2 addresses failed",
  },
  "dial: unknown error": {},
};

Deno.test("OpError prints as Go's net.OpError", async (t) => {
  for (const [text, init] of Object.entries(PRINTED)) {
    await t.step(text, () => {
      const error = new OpError(init);
      assertEquals(error.message, text);
      assertEquals(String(error), `OpError: ${text}`);
    });
  }
});

Deno.test("OpError has the fields that it was given, and no others", async (t) => {
  await t.step("all fields", () => {
    const cause = errno("EPIPE");
    const error = new OpError({
      op: "write",
      network: "tcp",
      source: local,
      addr: remote,
      cause,
      bytesWritten: 0,
    });
    assertInstanceOf(error, Error);
    assertStrictEquals(error.cause, cause);
    assertStrictEquals(error.source, local);
    assertStrictEquals(error.addr, remote);
    assertEquals({ ...error }, {
      name: "OpError",
      op: "write",
      network: "tcp",
      source: local,
      addr: remote,
      code: "EPIPE",
      bytesWritten: 0,
      timeout: false,
      temporary: false,
    });
  });
  await t.step("no fields", () => {
    assertEquals({ ...new OpError({}) }, {
      name: "OpError",
      op: "dial",
      network: "",
      timeout: false,
      temporary: false,
    });
  });
});

const accept = (code: string): OpErrorInit => ({
  op: "accept",
  cause: errno(code),
});

const KINDS: {
  [what: string]: [init: OpErrorInit, timeout: boolean, temporary: boolean];
} = {
  "no cause": [{}, false, false],
  "refused": [{ cause: errno("ECONNREFUSED") }, false, false],
  "a deadline": [{ cause: new DeadlineExceededError() }, true, true],
  "the kernel's timeout": [{ cause: errno("ETIMEDOUT") }, true, true],
  "the runtime's timeout": [
    { cause: new Deno.errors.TimedOut("x") },
    true,
    true,
  ],
  "a DNS timeout": [
    { cause: new DnsError({ hostname: "a", timeout: true }) },
    true,
    true,
  ],
  "a temporary DNS failure": [
    { cause: new DnsError({ hostname: "a", temporary: true }) },
    false,
    true,
  ],
  "no such host": [
    { cause: new DnsError({ hostname: "a", notFound: true }) },
    false,
    false,
  ],
  "a timeout in a cause's cause": [
    { cause: new Error("x", { cause: new DeadlineExceededError() }) },
    true,
    true,
  ],
  "closed": [{ cause: new ClosedError() }, false, false],
  "EMFILE": [accept("EMFILE"), false, true],
  "ENFILE": [accept("ENFILE"), false, true],
  "EINTR": [{ cause: errno("EINTR") }, false, true],
  "closed meanwhile": [
    {
      cause: Object.assign(new Deno.errors.Interrupted(), { code: "EINTR" }),
    },
    false,
    false,
  ],
  "EAGAIN": [{ cause: errno("EAGAIN") }, false, true],
  "ENOBUFS": [accept("ENOBUFS"), false, false],
  "ENOMEM": [accept("ENOMEM"), false, false],
  "an accept's ECONNRESET": [accept("ECONNRESET"), false, true],
  "an accept's ECONNABORTED": [accept("ECONNABORTED"), false, true],
  "a read's ECONNRESET": [
    { op: "read", cause: errno("ECONNRESET") },
    false,
    false,
  ],
  "a dial's ECONNABORTED": [{ cause: errno("ECONNABORTED") }, false, false],
};

Deno.test("OpError recognizes timeouts and temporary failures", async (t) => {
  for (const [what, [init, timeout, temporary]] of Object.entries(KINDS)) {
    await t.step(what, () => {
      const error = new OpError(init);
      assertEquals([error.timeout, error.temporary], [timeout, temporary]);
      assertEquals(isTimeout(error), timeout);
    });
  }
});

const CODES: [error: unknown, code: string | undefined][] = [
  [errno("EHOSTUNREACH"), "EHOSTUNREACH"],
  [new Deno.errors.ConnectionRefused("x"), "ECONNREFUSED"],
  [new Deno.errors.ConnectionReset("x"), "ECONNRESET"],
  [new Deno.errors.ConnectionAborted("x"), "ECONNABORTED"],
  [new Deno.errors.NotConnected("x"), "ENOTCONN"],
  [new Deno.errors.BrokenPipe("x"), "EPIPE"],
  [new Deno.errors.AddrInUse("x"), "EADDRINUSE"],
  [new Deno.errors.AddrNotAvailable("x"), "EADDRNOTAVAIL"],
  [new Deno.errors.NetworkUnreachable("x"), "ENETUNREACH"],
  [new Deno.errors.TimedOut("x"), "ETIMEDOUT"],
  [new Deno.errors.PermissionDenied("x"), "EACCES"],
  // The code says more than the class.
  [
    Object.assign(new Deno.errors.PermissionDenied("x"), { code: "EPERM" }),
    "EPERM",
  ],
  [new OpError({ cause: errno("EMFILE") }), "EMFILE"],
  // Neither code nor class, just a text: what Deno makes of some errnos.
  [new Error("Too many open files in system (os error 23)"), "ENFILE"],
  [new Error("Protocol error (os error 71)"), "EPROTO"],
  [new Error("Protocol wrong type for socket (os error 91)"), "EPROTOTYPE"],
  [new Error("Too many links (os error 31)"), undefined],
  [new Error("Protocol error"), undefined],
  // A DOMException's code is a number, but no errno.
  [new DOMException("x", "TimeoutError"), undefined],
  [new Deno.errors.BadResource("x"), undefined],
  [new Error("ECONNREFUSED"), undefined],
  [{ code: "ECONNREFUSED" }, undefined],
  ["ECONNREFUSED", undefined],
  [null, undefined],
  [undefined, undefined],
];

Deno.test("errorCode() reads the errno, or else the class", async (t) => {
  for (const [error, code] of CODES) {
    await t.step(`${Deno.inspect(error).split("\n")[0]}: ${code}`, () => {
      assertEquals(errorCode(error), code);
    });
  }
});

const WORDS: { [code: string]: string } = {
  EACCES: "permission denied",
  EADDRINUSE: "address already in use",
  EADDRNOTAVAIL: "cannot assign requested address",
  EAFNOSUPPORT: "address family not supported by protocol",
  ECONNABORTED: "software caused connection abort",
  ECONNREFUSED: "connection refused",
  ECONNRESET: "connection reset by peer",
  EHOSTDOWN: "host is down",
  EHOSTUNREACH: "no route to host",
  EINVAL: "invalid argument",
  EMFILE: "too many open files",
  ENETDOWN: "network is down",
  ENETUNREACH: "network is unreachable",
  ENFILE: "too many open files in system",
  ENOBUFS: "no buffer space available",
  ENOENT: "no such file or directory",
  ENOMEM: "cannot allocate memory",
  ENONET: "machine is not on the network",
  ENOPROTOOPT: "protocol not available",
  ENOSR: "out of streams resources",
  ENOTCONN: "transport endpoint is not connected",
  EPERM: "operation not permitted",
  EPIPE: "broken pipe",
  EPROTO: "protocol error",
  EPROTOTYPE: "protocol wrong type for socket",
  ETIMEDOUT: "connection timed out",
};

Deno.test("OpError survives a cause whose getters throw", () => {
  const cause = new Error();
  const odd = {
    get(): never {
      throw new Error("a getter");
    },
  };
  for (const name of ["code", "message", "name", "cause", "op"]) {
    Object.defineProperty(cause, name, { ...odd, configurable: true });
  }
  const error = new OpError({ op: "read", network: "tcp", cause });
  assertEquals(error.message, "read tcp: unknown error");
  Object.defineProperty(cause, "name", { value: "OpError" });
  assertStringIncludes(new OpError({ cause }).message, "unknown error");
  assertEquals([error.timeout, error.temporary], [false, false]);
});

Deno.test("OpError survives causes that go round in circles", () => {
  const first = new OpError({ op: "read", cause: new Error("broken") });
  const second = new OpError({ op: "write", cause: first });
  first.cause = second;
  for (const cause of [first, second]) {
    const { message } = new OpError({ op: "read", network: "tcp", cause });
    assertStringIncludes(message, "broken");
  }
  first.cause = first;
  const { message } = new OpError({ op: "read", network: "tcp", cause: first });
  assertStringIncludes(message, "broken");
});

Deno.test("OpError survives a cause whose name is no text", () => {
  const cause = Object.assign(new Error(), { name: Object.create(null) });
  const error = new OpError({ op: "read", network: "tcp", cause });
  assertEquals(error.message, "read tcp: unknown error");
});

Deno.test("OpError and DnsError do not print absent fields", () => {
  for (const error of [new OpError(), new DnsError()]) {
    const shown = Deno.inspect(error);
    assertFalse(shown.includes("undefined"), shown);
  }
});

Deno.test("reasonText() has a text for whatever was thrown", async (t) => {
  const inner = new OpError({ op: "dial", network: "tcp", addr: remote });
  const refused = errno("ECONNREFUSED");
  const addr = remote;
  const within = (cause: unknown) =>
    new OpError({ op: "write", network: "tcp", addr, cause });
  const cases: [cause: unknown, words: string][] = [
    [within(errno("EPIPE")), "broken pipe"], // of a Conn inside a Conn
    [within(within(errno("ESOME", "Something"))), "something"],
    [within(undefined), within(undefined).message],
    [ // of another version of this library
      Object.assign(new Error("read tcp: broken pipe"), {
        name: "OpError",
        op: "read",
        cause: errno("EPIPE"),
      }),
      "broken pipe",
    ],
    [new ErrorEvent("error", { message: "bad handshake" }), "bad handshake"],
    [{ why: 1 }, "{ why: 1 }"],
    [Object.create(null), "[Object: null prototype] {}"],
    [null, "null"],
    ["text", "text"],
    [new TypeError(), "TypeError"],
    // A text of its own, from a proxy or a policy, says more than the errno's.
    [
      Object.assign(new Error("proxy: 503 refused"), { code: "ECONNREFUSED" }),
      "proxy: 503 refused",
    ],
    [new Deno.errors.PermissionDenied("not by policy"), "not by policy"],
    [new Deno.errors.ConnectionRefused(), "connection refused"],
    [
      Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" }),
      "connection reset by peer", // node:net's text
    ],
    [
      new Deno.errors.ConnectionReset("connection reset"),
      "connection reset by peer", // rustls's
    ],
    [
      Object.assign(new Error("proxy:1 told ECONNREFUSED"), {
        code: "ECONNREFUSED",
      }),
      "proxy:1 told ECONNREFUSED",
    ],
    [
      Object.assign(new Error("connect ECONNREFUSED 10.0.0.9:3128"), {
        code: "ECONNREFUSED",
      }),
      "connect ECONNREFUSED 10.0.0.9:3128", // names the proxy
    ],
    [
      Object.assign(new Error("read ECONNRESET"), { code: "ECONNREFUSED" }),
      "read ECONNRESET",
    ],
    // Always a single line.
    [new Error("503 Busy\r\nServer: x"), "503 Busy Server: x"],
    ["502 Bad\r\n\r\nServer: y\r\n", "502 Bad Server: y"],
    [{ message: "504 Slow\rServer: z" }, "504 Slow Server: z"],
    [new Error("  at one\n  at two "), "at one at two"],
    [new Error(" \r\n"), "unknown error"],
    // `message` need not be a string.
    [
      Object.assign(errno("EPIPE"), { message: { status: 503 } }),
      "broken pipe",
    ],
    [Object.assign(new TypeError(), { message: null }), "TypeError"],
    [Object.assign(within(undefined), { message: 5 }), "unknown error"],
    [Object.assign(new Error(), { name: 5 }), "5"],
    [Object.assign(new Error("said"), { code: "" }), "said"],
    [Object.assign(new Error("said"), { code: "toString" }), "said"],
    [errno("ENOTDIR", "Not a directory"), "not a directory"],
    [new Error("Text of no errno"), "Text of no errno"],
    [inner, inner.message],
    [
      new OpError({ network: "tcp", addr: remote, cause: refused }),
      "dial tcp [::1]:80: connection refused", // a tunnel's own dial
    ],
  ];
  for (const [cause, words] of cases) {
    await t.step(words, () => assertEquals(reasonText(cause), words));
  }
});

// The text may come from a peer, through a connector.
Deno.test("reasonText() is fast for a text that is full of blanks", () => {
  const start = performance.now();
  const words = `x${"\t".repeat(1024 * 1024)}y`;
  assertEquals(reasonText(new Error(words)).length, words.length);
  assert(performance.now() - start < 1_000); // else: a quarter of an hour
});

Deno.test("reasonText() uses Go's text for an errno", async (t) => {
  for (const [code, words] of Object.entries(WORDS)) {
    await t.step(`${code}: ${words}`, () => {
      assertEquals(reasonText(errno(code)), words);
    });
  }
});

Deno.test("OpError prints the platform's own errors as Go does", async (t) => {
  await t.step("refused", async () => {
    const port = 1; // a port closed just now may still be open in a child
    const cause = await Deno.connect({ hostname: "127.0.0.1", port })
      .catch((error) => error);
    const addr = new TcpAddr("127.0.0.1", port);
    const error = new OpError({ network: "tcp", addr, cause });
    assertEquals(
      error.message,
      `dial tcp 127.0.0.1:${port}: connection refused`,
    );
    assertEquals(error.code, "ECONNREFUSED");
  });
  await t.step("in use", () => {
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = listener.addr as Deno.NetAddr;
    let cause;
    try {
      Deno.listen({ hostname: "127.0.0.1", port }).close();
    } catch (error) {
      cause = error;
    }
    const addr = new TcpAddr("127.0.0.1", port);
    const error = new OpError({ op: "listen", network: "tcp", addr, cause });
    assertEquals(
      error.message,
      `listen tcp 127.0.0.1:${port}: address already in use`,
    );
    assertEquals(error.code, "EADDRINUSE");
  });
  await t.step("closed", async () => {
    const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    listener.close();
    const cause = await listener.accept().catch((error) => error);
    assert(isClosed(new OpError({ op: "accept", cause })));
  });
});

Deno.test("every error class can be constructed without arguments", async (t) => {
  const CLASSES: [
    type: new () => Error,
    name: string,
    message: string,
    fields: Record<string, unknown>,
  ][] = [
    [OpError, "OpError", "dial: unknown error", {
      op: "dial",
      network: "",
      timeout: false,
      temporary: false,
    }],
    [ClosedError, "ClosedError", "use of closed network connection", {}],
    [DeadlineExceededError, "TimeoutError", "i/o timeout", { timeout: true }],
    [AddrError, "AddrError", "", { addr: "", reason: "" }],
    [DnsError, "DnsError", "lookup : unknown error", {
      hostname: "",
      notFound: false,
      timeout: false,
      temporary: false,
    }],
    [UnknownNetworkError, "UnknownNetworkError", "unknown network ", {}],
  ];
  for (const [type, name, message, fields] of CLASSES) {
    await t.step(name, () => {
      const error = new type();
      assertInstanceOf(error, Error);
      assertInstanceOf(error, type);
      assertEquals(error.message, message);
      assertEquals<unknown>({ ...error }, { name, ...fields });
      assert(error.stack?.includes("errors_test.ts"));
    });
  }
});

Deno.test("no error prints a control character of what it was given", () => {
  const odd = "\x1b[2J\nx\u202e\u2028\u2029\u061c";
  const errors = [
    new AddrError("no port", odd),
    new DnsError({ hostname: odd, notFound: true }),
    new UnknownNetworkError(odd),
    new OpError({ network: odd, reason: odd }),
  ];
  for (const { message } of errors) {
    const shown = "\\x1b[2J\\x0ax\\u202e\\u2028\\u2029\\u061c";
    assert(message.includes(shown), message);
    assert(!message.includes("\x1b") && !message.includes("\n"));
  }
});

const LOOKUPS: {
  [text: string]: [
    init: ConstructorParameters<typeof DnsError>[0],
    notFound: boolean,
    timeout: boolean,
  ];
} = {
  "lookup nosuch.test: no such host": [
    { hostname: "nosuch.test", notFound: true },
    true,
    false,
  ],
  "lookup a.test on 192.0.2.1:53: i/o timeout": [
    { hostname: "a.test", server: "192.0.2.1:53", timeout: true },
    false,
    true,
  ],
  "lookup a.test on 192.0.2.1:53: no such host": [
    { hostname: "a.test", server: "192.0.2.1:53", notFound: true },
    true,
    false,
  ],
  "lookup a.test: connection refused": [
    { hostname: "a.test", cause: errno("ECONNREFUSED") },
    false,
    false,
  ],
  "lookup a.test: server misbehaving": [
    {
      hostname: "a.test",
      reason: "server misbehaving",
      cause: errno("EPROTO"),
    },
    false,
    false,
  ],
};

Deno.test("DnsError prints as Go's net.DNSError", async (t) => {
  for (const [text, [init, notFound, timeout]] of Object.entries(LOOKUPS)) {
    await t.step(text, () => {
      const error = new DnsError(init);
      assertEquals(error.message, text);
      assertEquals([error.notFound, error.timeout], [notFound, timeout]);
      assertEquals(error.hostname, init?.hostname);
      assertEquals(error.server, init?.server);
      assertStrictEquals(error.cause, init?.cause);
      assertEquals(isTimeout(error), timeout);
    });
  }
});

/** `error`, wrapped in that many other errors. */
function buried(error: unknown, depth: number): unknown {
  for (let i = 0; i < depth; i++) error = new Error("outer", { cause: error });
  return error;
}

/** Errors in a circle: each has the next as its cause. */
function circle(...inner: Error[]): Error {
  const errors = [new Error("a"), ...inner, new Error("b")];
  errors.forEach((error, i) => error.cause = errors[(i + 1) % errors.length]);
  return errors[0]!;
}

const CLOSED: { [what: string]: unknown } = {
  "a ClosedError": new ClosedError(),
  "an OpError caused by one": new OpError({
    op: "read",
    cause: new ClosedError(),
  }),
  "another version's ClosedError": Object.assign(new Error(), {
    name: "ClosedError",
  }),
  "the platform's BadResource": new Deno.errors.BadResource("x"),
  "the platform's Interrupted": new Deno.errors.Interrupted("x"),
  "one cause down": buried(new ClosedError(), 1),
  "10,000 causes down": buried(new ClosedError(), 10_000),
  "in a circle of causes": circle(new ClosedError()),
};

const NOT_CLOSED: { [what: string]: unknown } = {
  "the peer's reset": new OpError({ op: "read", cause: errno("ECONNRESET") }),
  "a deadline": new DeadlineExceededError(),
  "the text alone": new Error("use of closed network connection"),
  "the name alone": { name: "ClosedError" },
  "a ClosedError behind a value that is no error": new Error("x", {
    cause: { cause: new ClosedError() },
  }),
  "a circle of other errors": circle(),
  "undefined": undefined,
  "null": null,
  "a string": "closed",
};

Deno.test("isClosed() looks through any depth of causes", async (t) => {
  for (const [what, error] of Object.entries(CLOSED)) {
    await t.step(what, () => assert(isClosed(error)));
  }
  for (const [what, error] of Object.entries(NOT_CLOSED)) {
    await t.step(`not ${what}`, () => assertFalse(isClosed(error)));
  }
});

const TIMEOUTS: { [what: string]: unknown } = {
  "a DeadlineExceededError": new DeadlineExceededError(),
  "an OpError caused by one": new OpError({
    cause: new DeadlineExceededError(),
  }),
  "ETIMEDOUT": errno("ETIMEDOUT"),
  "the platform's TimedOut": new Deno.errors.TimedOut("x"),
  "a DnsError that timed out": new DnsError({ timeout: true }),
  "a DOMException named TimeoutError": new DOMException("x", "TimeoutError"),
  "another library's `timeout: true`": Object.assign(new Error(), {
    timeout: true,
  }),
  "one cause down": buried(new DeadlineExceededError(), 1),
  "10,000 causes down": buried(errno("ETIMEDOUT"), 10_000),
  "in a circle of causes": circle(new DeadlineExceededError()),
};

const NO_TIMEOUTS: { [what: string]: unknown } = {
  "a ClosedError": new ClosedError(),
  "an abort": new DOMException("x", "AbortError"),
  "a refusal": new OpError({ cause: errno("ECONNREFUSED") }),
  "a name that does not exist": new DnsError({ notFound: true }),
  "a `timeout` that is a number": Object.assign(new Error(), { timeout: 5 }),
  "the text alone": new Error("i/o timeout"),
  "a circle of other errors": circle(),
  "undefined": undefined,
  "null": null,
  "a string": "TimeoutError",
};

Deno.test("isTimeout() looks through any depth of causes", async (t) => {
  for (const [what, error] of Object.entries(TIMEOUTS)) {
    await t.step(what, () => assert(isTimeout(error)));
  }
  for (const [what, error] of Object.entries(NO_TIMEOUTS)) {
    await t.step(`not ${what}`, () => assertFalse(isTimeout(error)));
  }
});

Deno.test("isTimeout() is true for the reason of AbortSignal.timeout()", async () => {
  const signal = AbortSignal.timeout(0);
  const aborted = Promise.withResolvers<void>();
  signal.onabort = () => aborted.resolve();
  // Its timer is unref'd and would not keep the test's process alive.
  const keepAlive = setTimeout(() => {}, 60_000);
  await aborted.promise;
  clearTimeout(keepAlive);
  assert(isTimeout(signal.reason));
  assert(new OpError({ cause: signal.reason }).timeout);
  assertFalse(isTimeout(AbortSignal.abort().reason));
});

Deno.test("explicit `timeout` and `temporary` override what the error implies", () => {
  const cause = new DeadlineExceededError();
  assertEquals(new OpError({ cause, timeout: false }).timeout, false);
  const { temporary } = new DnsError({ timeout: true, temporary: false });
  assertEquals(temporary, false);
});
