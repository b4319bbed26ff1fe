import { assert, assertEquals } from "@std/assert";
import config from "../deno.json" with { type: "json" };

// The public face, name by name: a change to it shows here. Other names are
// internal, whatever file they are exported from.
const EXPORTS: { [entry: string]: string } = {
  ".": `
    AcceptErrorEvent Addr AddrError Clock ClosedError Conn ConnOptions Connector
    DeadlineExceededError DialAttempt DialError DialErrorInit DialOptions
    DialTrace Dialer DnsError DnsErrorInit DnsResolverOptions HandleOptions
    Handler HandlerContext IoOptions ListenOptions Listener ListenerOptions
    Network OpError OpErrorInit Resolver ServeOptions Server ShutdownOptions
    ShutdownReport TcpAddr UnixAddr UnknownNetworkError copy copyBidirectional
    dial dnsResolver handle isClosed isTimeout joinHostPort listen lookupPort
    serve splitHostPort systemResolver
  `,
  "./listener": `
    AcceptErrorEvent ListenOptions Listener ListenerOptions listen
  `,
  "./dialer": `
    Connector DialAttempt DialError DialErrorInit DialOptions DialTrace Dialer
    dial
  `,
  "./handler": `
    HandleOptions Handler HandlerContext ServeOptions Server ShutdownOptions
    ShutdownReport handle serve
  `,
  "./testing": `
    Clock FakeClock Fault HostScript InMemory LogEntry LogEvent MemoryNetwork
    MemoryNetworkOptions PipeOptions inMemory pipe
  `,
};

const words = (text: string) => text.trim().split(/\s+/);

/** What `deno doc` says of a module. */
interface Documentation {
  module_doc: { doc?: string };
  symbols: { name: string }[];
}

async function documentation(path: string): Promise<Documentation> {
  const { stdout, success } = await new Deno.Command(Deno.execPath(), {
    args: ["doc", "--json", path],
    cwd: new URL("..", import.meta.url),
    stderr: "inherit",
  }).output();
  assert(success);
  const { nodes } = JSON.parse(new TextDecoder().decode(stdout));
  return Object.values<Documentation>(nodes)[0]!;
}

Deno.test("deno.json exports these modules", () => {
  assertEquals(Object.keys(config.exports), Object.keys(EXPORTS));
});

for (const [entry, path] of Object.entries(config.exports)) {
  Deno.test(`"${entry}" exports these names`, async (t) => {
    const names = words(EXPORTS[entry] ?? "");
    const { module_doc, symbols } = await documentation(path);
    await t.step("types included", () => {
      assertEquals(symbols.map(({ name }) => name).toSorted(), names);
    });
    await t.step("and says what they are for", () => {
      assert(module_doc.doc);
    });
    await t.step("values that are there", async () => {
      const module = await import(`../${path}`);
      for (const [name, value] of Object.entries(module)) {
        assert(names.includes(name), name);
        assertEquals(typeof value, "function", name);
      }
    });
  });
}

Deno.test('"." exports what "./listener", "./dialer" and "./handler" do', () => {
  const all = words(EXPORTS["."]!);
  const parts = ["./listener", "./dialer", "./handler"].flatMap((entry) =>
    words(EXPORTS[entry]!)
  );
  assertEquals(parts.filter((name) => !all.includes(name)), []);
});
