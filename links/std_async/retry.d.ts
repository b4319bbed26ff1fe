export interface RetryOptions {
  maxTimeout?: number;
  maxAttempts?: number;
  minTimeout?: number;
  isRetriable?: (err: unknown) => boolean;
  signal?: AbortSignal;
}

export function retry<T>(
  fn: (() => Promise<T>) | (() => T),
  options?: RetryOptions,
): Promise<T>;
