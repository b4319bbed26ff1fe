// A smaller typing than the package's own, and a stricter one: what type-checks
// here does so there. Dotted names (`--a.b`) and aliases are not in it.

/** Names given as one string or as a list. */
type Names<N extends string> = N | readonly N[];

export interface ParseOptions<
  B extends string,
  S extends string,
  C extends string,
  D extends Record<string, unknown>,
> {
  "--"?: boolean;
  alias?: Record<string, string | readonly string[]>;
  boolean?: Names<B>;
  string?: Names<S>;
  collect?: Names<C>;
  default?: D;
  stopEarly?: boolean;
  negatable?: string | readonly string[];
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

export function parseArgs<
  const B extends string = never,
  const S extends string = never,
  const C extends string = never,
  D extends Record<string, unknown> = Record<never, never>,
>(
  args: string[],
  options?: ParseOptions<B, S, C, D>,
):
  & { [K in Exclude<B, C | keyof D>]: boolean }
  & { [K in Extract<Exclude<B, C>, keyof D>]: boolean | D[K] }
  & { [K in Exclude<S, C | keyof D>]?: string }
  & { [K in Extract<Exclude<S, C>, keyof D>]: string | D[K] }
  & { [K in Extract<S, C>]: string[] }
  & { [K in Exclude<keyof D, B | S>]: unknown }
  & { _: Array<string | number> };
