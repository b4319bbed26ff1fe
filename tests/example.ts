/**
 * Runs the examples as a reader would: with the flags that their headers name.
 *
 * @module
 */

/** The permission flags of the command in an example's header. */
async function flagsOf(url: URL, name: string): Promise<string[]> {
  const command = /^\/\/ +deno run (.*) examples\/(\w+)\.ts/m
    .exec(await Deno.readTextFile(url));
  if (command?.[2] !== name) {
    throw new Error(`${name}: no command in its header`);
  }
  return command[1]!.split(" ").map((flag) => flag.replaceAll('"', ""));
}

/** How a program ended, and its output that the test had not read yet. */
export interface End {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs an example to its end. */
export async function run(name: string, ...args: string[]): Promise<End> {
  await using program = await Program.example(name, ...args);
  return await program.ended();
}

/** A running program, talked to line by line; `await using` ends it. */
export class Program implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #output: Lines;
  readonly #errors: Lines;

  /** Starts it. */
  constructor(command: string, args: string[]) {
    this.#child = new Deno.Command(command, {
      args,
      cwd: new URL("../", import.meta.url),
      env: { NO_COLOR: "1" },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#output = new Lines(this.#child.stdout);
    this.#errors = new Lines(this.#child.stderr);
  }

  /** Starts an example with exactly the permissions that its header names. */
  static async example(name: string, ...args: string[]): Promise<Program> {
    const url = new URL(`../examples/${name}.ts`, import.meta.url);
    return new Program(Deno.execPath(), [
      ...["run", "--quiet", "--no-prompt", ...await flagsOf(url, name)],
      ...[`examples/${name}.ts`, ...args],
    ]);
  }

  /** Reads stdout up to the next line that matches; returns the match. */
  line(pattern: RegExp): Promise<RegExpExecArray> {
    return this.#output.find(pattern);
  }

  /** The same on stderr. */
  errorLine(pattern: RegExp): Promise<RegExpExecArray> {
    return this.#errors.find(pattern);
  }

  /** The port that it says it listens on. */
  async port(): Promise<number> {
    return Number((await this.line(/^listening on .*:(\d+)$/))[1]);
  }

  /** Types something. */
  async type(text: string): Promise<void> {
    await this.#input.write(new TextEncoder().encode(text));
  }

  /** Ctrl-D. */
  async endInput(): Promise<void> {
    await this.#input.close();
  }

  /** Sends a signal: Ctrl-C, if no other is named. */
  interrupt(signal: Deno.Signal = "SIGINT"): void {
    this.#child.kill(signal);
  }

  /** Waits for its end. */
  async ended(): Promise<End> {
    const [stdout, stderr, { code }] = await Promise.all([
      this.#output.rest(),
      this.#errors.rest(),
      this.#child.status,
    ]);
    return { code, stdout, stderr };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // it has ended already
    }
    await this.ended();
    await this.#input.abort().catch(() => {}); // endInput() has closed it
  }
}

/** No program is silent for this long, however busy the machine is. */
const PATIENCE_MS = 30_000;

/** A stream of text, line by line. */
class Lines {
  readonly #reader: ReadableStreamDefaultReader<string>;
  #seen = "";
  #unread = "";
  #done = false;

  constructor(bytes: ReadableStream<Uint8Array<ArrayBuffer>>) {
    this.#reader = bytes.pipeThrough(new TextDecoderStream()).getReader();
  }

  async find(pattern: RegExp): Promise<RegExpExecArray> {
    const timer = setTimeout(() => this.#reader.cancel(), PATIENCE_MS);
    try {
      for (;;) {
        for (let end; (end = this.#unread.indexOf("\n")) >= 0;) {
          const match = pattern.exec(this.#unread.slice(0, end));
          this.#unread = this.#unread.slice(end + 1);
          if (match) return match;
        }
        if (this.#done) throw new Error(`no ${pattern} in: ${this.#seen}`);
        await this.#more();
      }
    } finally {
      clearTimeout(timer);
    }
  }

  async rest(): Promise<string> {
    while (!this.#done) await this.#more();
    return this.#unread;
  }

  async #more(): Promise<void> {
    const { done, value = "" } = await this.#reader.read();
    this.#done = done;
    this.#seen += value;
    this.#unread += value;
  }
}
