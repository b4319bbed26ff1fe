/**
 * A child process, talked to line by line.
 *
 * @module
 */

/** Options of {@linkcode Child}. */
export interface ChildOptions {
  env?: Record<string, string>;
  /** Whether to collect what it says on stderr, in {@linkcode Child.errors}. */
  errors?: boolean;
}

/** Starts a command; `await using` ends it. */
export class Child implements AsyncDisposable {
  /** What it has said on stderr, line by line, if asked to collect it. */
  readonly errors: string[] = [];
  readonly #process: Deno.ChildProcess;
  readonly #lines: ReadableStreamDefaultReader<string>;
  readonly #collecting: Promise<void>;
  readonly #name: string;

  constructor(command: string[], options: ChildOptions = {}) {
    const [program = "", ...args] = command;
    this.#name = command.join(" ");
    this.#process = new Deno.Command(program, {
      args,
      env: options.env ?? {},
      stdin: "piped",
      stdout: "piped",
      stderr: options.errors ? "piped" : "inherit",
    }).spawn();
    this.#lines = linesOf(this.#process.stdout).getReader();
    this.#collecting = options.errors ? this.#collect() : Promise.resolve();
  }

  /** Process id; of what `taskset` and `sh -c exec` start, too. */
  get pid(): number {
    return this.#process.pid;
  }

  /** Settles when the process has ended. */
  get status(): Promise<Deno.CommandStatus> {
    return this.#process.status;
  }

  /** The next line that it prints. */
  async line(): Promise<string> {
    const { value, done } = await this.#lines.read();
    if (!done) return value;
    const { code } = await this.#process.status;
    throw new Error(`ended with ${code}: ${this.#name}`);
  }

  /** The next line, which is JSON. */
  async json<T>(): Promise<T> {
    return JSON.parse(await this.line());
  }

  /** Ends its stdin, which ends a load generator that holds connections. */
  async endInput(): Promise<void> {
    await this.#process.stdin.close();
  }

  /** Sends a signal. */
  signal(signal: Deno.Signal): void {
    this.#process.kill(signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#process.kill("SIGKILL");
    } catch (error) {
      // It has ended already.
      if (!(error instanceof TypeError)) throw error;
    }
    await this.#process.status;
    await this.#lines.cancel();
    await this.#collecting;
    await this.#process.stdin.abort().catch(() => {
      // endInput() has closed it.
    });
  }

  async #collect(): Promise<void> {
    for await (const line of linesOf(this.#process.stderr)) {
      this.errors.push(line);
    }
  }
}

function linesOf(bytes: ReadableStream<Uint8Array>): ReadableStream<string> {
  let rest = "";
  return bytes.pipeThrough(new TextDecoderStream()).pipeThrough(
    new TransformStream<string, string>({
      transform(text, controller) {
        const lines = (rest + text).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) controller.enqueue(line);
      },
      flush(controller) {
        if (rest) controller.enqueue(rest);
      },
    }),
  );
}

/** Runs a command to its end and returns the one line of JSON it printed. */
export async function ask<T>(
  command: string[],
  options?: ChildOptions,
): Promise<T> {
  await using child = new Child(command, options);
  const answer = await child.json<T>();
  await child.status;
  return answer;
}
