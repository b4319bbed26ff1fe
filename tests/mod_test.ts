/** The package as users see it: its exports, its pages, its imports. */
import { assert, assertEquals } from "@std/assert";
import config from "../deno.json" with { type: "json" };

const root = new URL("..", import.meta.url);

// The public names: a change to them shows here. All others are internal,
// whatever file exports them.
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

/** What `deno doc` says of our modules, by their URLs. */
async function documentation(): Promise<
  Record<string, { module_doc: { doc?: string }; symbols: { name: string }[] }>
> {
  const { stdout, success } = await new Deno.Command(Deno.execPath(), {
    args: ["doc", "--json", ...Object.values(config.exports)],
    cwd: root,
    stderr: "inherit",
  }).output();
  assert(success);
  return JSON.parse(new TextDecoder().decode(stdout)).nodes;
}

Deno.test("deno.json exports these modules", () => {
  assertEquals(Object.keys(config.exports), Object.keys(EXPORTS));
});

Deno.test("each module exports its names", async (t) => {
  const documented = await documentation();
  for (const [entry, path] of Object.entries(config.exports)) {
    const names = words(EXPORTS[entry] ?? "");
    const { module_doc, symbols } = documented[new URL(path, root).href]!;
    await t.step(`"${entry}", types included`, () => {
      assertEquals(symbols.map(({ name }) => name).toSorted(), names);
    });
    await t.step(`"${entry}" has a module comment`, () => {
      assert(module_doc.doc);
    });
    await t.step(`"${entry}" has the values`, async () => {
      const module = await import(`../${path}`);
      for (const [name, value] of Object.entries(module)) {
        assert(names.includes(name), name);
        assertEquals(typeof value, "function", name);
      }
    });
  }
});

Deno.test('"." exports what "./listener", "./dialer" and "./handler" do', () => {
  const all = words(EXPORTS["."]!);
  const parts = ["./listener", "./dialer", "./handler"].flatMap((entry) =>
    words(EXPORTS[entry]!)
  );
  assertEquals(parts.filter((name) => !all.includes(name)), []);
});

/** The files of a folder and of those below it, by their path from the root. */
async function* files(folder: string): AsyncGenerator<string> {
  for await (
    const { name, isDirectory } of Deno.readDir(new URL(folder, root))
  ) {
    if (isDirectory) yield* files(`${folder}${name}/`);
    else yield folder + name;
  }
}

const read = (path: string) => Deno.readTextFile(new URL(path, root));

/** The pages of prose. */
async function pages(): Promise<string[]> {
  const docs = await Array.fromAsync(files("docs/"));
  return ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", ...docs];
}

/** The library's own modules. */
async function modules(): Promise<string[]> {
  const inner = [
    ...await Array.fromAsync(files("net/")),
    ...await Array.fromAsync(files("testing/")),
  ];
  return ["mod.ts", "listener.ts", "dialer.ts", "handler.ts", ...inner];
}

Deno.test("every link between our pages has a target", async (t) => {
  for (const page of await pages()) {
    await t.step(page, async () => {
      const text = await read(page);
      for (const [, target] of text.matchAll(/\]\(([^)\s#]+)[^)]*\)/g)) {
        if (/^[a-z]+:/.test(target!)) continue;
        const url = new URL(target!, new URL(page, root));
        await Deno.stat(url).catch(() => {
          throw new Error(`${page}: no ${target}`);
        });
      }
    });
  }
});

Deno.test("README.md names every page in docs/", async () => {
  const text = await read("README.md");
  for await (const page of files("docs/")) {
    assert(text.includes(`(${page})`), page);
  }
});

Deno.test("CONTRIBUTING.md names every file in net/ and testing/", async () => {
  const text = await read("CONTRIBUTING.md");
  for (const path of await modules()) {
    const [, name = "mod"] = /\/(\w+)\.ts$/.exec(path) ?? [];
    if (name === "mod") continue; // the layout above has these
    assert(new RegExp(`\`${name}(\\.ts)?\``).test(text), path);
  }
});

Deno.test("every task that our pages name exists", async (t) => {
  for (const page of await pages()) {
    await t.step(page, async () => {
      const named = (await read(page)).matchAll(/deno(?:@\S+)? task (\w+)/g);
      for (const [, task] of named) assert(task! in config.tasks, task);
    });
  }
});

Deno.test("no snippet is marked to be skipped", async () => {
  for (const path of [...await pages(), ...await modules()]) {
    // `ts ignore` and its like make `deno test --doc` skip a block.
    const fence = /```(?:ts|js|tsx|jsx|typescript|javascript)[ ,]+\S/;
    assert(!fence.test(await read(path)), path);
  }
});

Deno.test("the library imports only itself and node:, in one direction", async () => {
  const allowed = new Set(["mod", "listener", "dialer", "handler"]);
  for (const path of await modules()) {
    const code = (await read(path)).replaceAll(/^ *\*.*$/gm, "");
    for (
      const [how, from] of code.matchAll(
        /(?: from |import\(|^import )"([^"]+)"/gm,
      )
    ) {
      // Loading one costs a program 30 ms: only on first use.
      if (from!.startsWith("node:")) {
        const lazy = how!.startsWith("import(");
        assert(lazy || path.startsWith("testing/"), `${path}: ${from}`);
        continue;
      }
      const target = new URL(from!, new URL(path, root)).href
        .slice(root.href.length);
      const [, folder] = /^(?:(net|testing)\/)?\w+\.ts$/.exec(target) ?? [];
      const top = target.replace(/\.ts$/, "");
      assert(folder !== undefined || allowed.has(top), `${path}: ${from}`);
      // One direction: nothing imports what is built on it.
      const [name] = path.split(".");
      if (path.startsWith("net/") || (allowed.has(name!) && name !== "mod")) {
        assertEquals(folder, "net", path);
      }
      if (!path.startsWith("testing/")) assert(folder !== "testing", path);
    }
  }
});

Deno.test("the version is that of the latest release in CHANGELOG.md, if there is one", async () => {
  const text = await read("CHANGELOG.md");
  const headings = [...text.matchAll(/^## \[?([^\]\s]+)/gm)].map((m) => m[1]);
  const released = headings.find((heading) => heading !== "Unreleased");
  assert(released === undefined || released === config.version, released);
});
