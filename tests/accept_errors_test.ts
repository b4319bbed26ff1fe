import { assertEquals } from "@std/assert";
import { type AcceptErrorKind, acceptErrorKind } from "../net/accept_errors.ts";

Deno.test("acceptErrorKind() classifies errors by their code", async (t) => {
  const codes: Record<AcceptErrorKind, string[]> = {
    // accept(2): "errors already pending on the new socket", and trio's list.
    peer: [
      "ECONNABORTED",
      "ECONNRESET",
      "EHOSTDOWN",
      "EHOSTUNREACH",
      "ENETDOWN",
      "ENETUNREACH",
      "ENONET",
      "ENOPROTOOPT",
      "ENOSR",
      "ENOTCONN",
      "EOPNOTSUPP",
      "EPERM",
      "EPROTO",
      "EPROTONOSUPPORT",
      "ESOCKTNOSUPPORT",
      "ETIMEDOUT",
    ],
    capacity: ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"],
    fatal: ["EBADF", "EINVAL", "ENOTSOCK", "EFAULT", "EACCES", "EUNHEARDOF"],
    closed: [],
  };
  for (const [kind, list] of Object.entries(codes)) {
    for (const code of list) {
      await t.step(`${code} is ${kind}`, () => {
        const error = Object.assign(new Error("accept"), { code });
        assertEquals(acceptErrorKind(error), kind);
      });
    }
  }
});

Deno.test("acceptErrorKind() classifies errors without a code by their class", async (t) => {
  const { errors } = Deno;
  const rows: [string, unknown, AcceptErrorKind][] = [
    ["BadResource", new errors.BadResource("Bad resource ID"), "closed"],
    ["Interrupted", new errors.Interrupted("operation canceled"), "closed"],
    ["NotConnected", new errors.NotConnected("endpoint"), "peer"],
    ["ConnectionReset", new errors.ConnectionReset("reset"), "peer"],
    ["ConnectionAborted", new errors.ConnectionAborted("aborted"), "peer"],
    ["NetworkUnreachable", new errors.NetworkUnreachable("net"), "peer"],
    ["TimedOut", new errors.TimedOut("timed out"), "peer"],
    ["InvalidData", new errors.InvalidData("is not valid UTF-8"), "peer"],
    ["Busy", new errors.Busy("Another accept task is ongoing"), "fatal"],
    ["NotCapable", new errors.NotCapable("net access"), "fatal"],
    ["PermissionDenied", new errors.PermissionDenied("denied"), "fatal"],
    ["a plain Error", new Error("surprise"), "fatal"],
    ["a TypeError", new TypeError("bug"), "fatal"],
    ["a string", "reset", "fatal"],
    ["undefined", undefined, "fatal"],
  ];
  for (const [name, error, kind] of rows) {
    await t.step(`${name} is ${kind}`, () => {
      assertEquals(acceptErrorKind(error), kind);
    });
  }
});

Deno.test("acceptErrorKind() counts EINVAL as a peer's error on macOS only", () => {
  const error = Object.assign(new TypeError("Invalid argument (os error 22)"), {
    code: "EINVAL",
  });
  assertEquals(acceptErrorKind(error, "darwin"), "peer");
  assertEquals(acceptErrorKind(error, "linux"), "fatal");
  assertEquals(acceptErrorKind(error, "windows"), "fatal");
});

Deno.test("acceptErrorKind() prefers the code to the class", () => {
  const error = Object.assign(new Deno.errors.PermissionDenied("accept"), {
    code: "EPERM", // from a firewall (accept(2)), not the sandbox
  });
  assertEquals(acceptErrorKind(error), "peer");
});
