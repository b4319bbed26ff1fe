/** What a connection begins with, dialled or accepted. */
export interface SocketOptions {
  /** Sets TCP_NODELAY. @default {true} */
  noDelay?: boolean | undefined;
  /** Sets SO_KEEPALIVE. @default {true} */
  keepAlive?: boolean | undefined;
}

/**
 * Sets the options of a new connection. Only TCP has them.
 *
 * @throws {Error} The platform's, if the connection has been reset already
 * (EINVAL on macOS).
 */
export function setSocketOptions(
  inner: Deno.Conn,
  { noDelay = true, keepAlive = true }: SocketOptions,
): void {
  const conn = inner as Partial<Deno.TcpConn>;
  if (noDelay) conn.setNoDelay?.(true);
  if (keepAlive) conn.setKeepAlive?.(true);
}
