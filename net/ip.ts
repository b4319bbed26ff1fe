/**
 * IP literals, strictly: RFC 4291 text for IPv6, four decimal numbers without
 * leading zeros for IPv4. `127.1`, `010.0.0.1` and `2130706433`, which
 * getaddrinfo takes for addresses, are refused (inet_aton's shorthand, long a
 * source of filter bypasses). Go's parser has refused leading zeros since 1.17,
 * and the others always.
 *
 * @module
 */

/** An address that was written as a literal. */
export interface Ip {
  /** IPv4-mapped addresses count as IPv4, as everywhere in Go. */
  readonly family: 4 | 6;
  /** RFC 5952 text, without the zone; an IPv4-mapped one as plain IPv4. */
  readonly text: string;
  /** What follows the `%`; `""` if nothing does. */
  readonly zone: string;
}

const OCTET = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
const IPV4 = new RegExp(`^${OCTET}(?:\\.${OCTET}){3}$`);

/**
 * What no zone contains: a second `%`, and what no interface's name can have. A
 * line end would begin a header of its own in a request to a proxy.
 */
const NO_ZONE = /[%\s\p{C}]/u;

/** Reads an IP literal; `null` if `text` is none. */
export function parseIp(text: string): Ip | null {
  if (IPV4.test(text)) return { family: 4, text, zone: "" };
  if (!text.includes(":")) return null;
  const percent = text.indexOf("%");
  const zone = percent < 0 ? "" : text.slice(percent + 1);
  if (NO_ZONE.test(zone)) return null;
  const groups = parseGroups(percent < 0 ? text : text.slice(0, percent));
  if (groups === null) return null;
  if (groups.slice(0, 6).join() === "0,0,0,0,0,65535") {
    if (percent >= 0) return null; // IPv4 has no zones, however it is written
    const [high, low] = [groups[6]!, groups[7]!];
    const v4 = [high >> 8, high & 255, low >> 8, low & 255].join(".");
    return { family: 4, text: v4, zone };
  }
  return { family: 6, text: formatGroups(groups), zone };
}

/** Whether an address means all addresses of this host. */
export function isWildcard(ip: Ip): boolean {
  return ip.text === "0.0.0.0" || ip.text === "::";
}

/**
 * The address for the platform: with its zone only if it is link-local
 * (fe80::/10, RFC 4291, section 2.5.6). Elsewhere a zone means nothing, and
 * getaddrinfo refuses its name.
 */
export function platformHost({ text, zone }: Ip): string {
  const linkLocal = /^fe[89ab][0-9a-f]:/.test(text);
  return zone !== "" && linkLocal ? `${text}%${zone}` : text;
}

/** The eight 16-bit groups of an IPv6 address (RFC 4291, section 2.2). */
function parseGroups(text: string): number[] | null {
  const [left, right, ...more] = text.split("::");
  if (more.length > 0) return null;
  const head = parseHalf(left!, right === undefined);
  const tail = right === undefined ? [] : parseHalf(right, true);
  if (head === null || tail === null) return null;
  if (right === undefined) return head.length === 8 ? head : null;
  const gap = 8 - head.length - tail.length;
  // "::" stands for at least one group.
  if (gap < 1) return null;
  return [...head, ...new Array<number>(gap).fill(0), ...tail];
}

function parseHalf(text: string, mayEndInIpv4: boolean): number[] | null {
  if (text === "") return [];
  const groups: number[] = [];
  const words = text.split(":");
  for (const [i, word] of words.entries()) {
    if (/^[0-9a-f]{1,4}$/i.test(word)) {
      groups.push(parseInt(word, 16));
    } else if (mayEndInIpv4 && i === words.length - 1 && IPV4.test(word)) {
      const [a, b, c, d] = word.split(".").map(Number);
      groups.push(a! << 8 | b!, c! << 8 | d!);
    } else return null;
  }
  return groups;
}

/** RFC 5952: lower case, no leading zeros, the first longest gap as `::`. */
function formatGroups(groups: number[]): string {
  let from = -1;
  let length = 1;
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (end < 8 && groups[end] === 0) end++;
    if (end - i > length) [from, length] = [i, end - i];
  }
  const words = groups.map((group) => group.toString(16));
  if (from < 0) return words.join(":");
  const head = words.slice(0, from).join(":");
  return `${head}::${words.slice(from + length).join(":")}`;
}
