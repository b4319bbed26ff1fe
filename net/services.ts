/**
 * The commonly used names of IANA's service registry, aliases included. Go
 * reads /etc/services; here no file is read and no permission asked.
 */
const TCP = `
  echo 7  discard 9  systat 11  daytime 13  netstat 15  qotd 17  chargen 19
  ftp-data 20  ftp 21  ssh 22  telnet 23  smtp 25  mail 25  time 37  whois 43
  nicname 43  tacacs 49  domain 53  gopher 70  finger 79  http 80  www 80
  kerberos 88  pop3 110  pop-3 110  sunrpc 111  portmapper 111  auth 113
  ident 113  nntp 119  ntp 123  epmap 135  netbios-ns 137  netbios-ssn 139
  imap2 143  imap 143  snmp 161  snmptrap 162  bgp 179  irc 194  imap3 220
  ldap 389  https 443  microsoft-ds 445  kpasswd 464  submissions 465
  smtps 465  ssmtp 465  exec 512  login 513  shell 514  syslog 514  printer 515
  klogin 543  kshell 544  rtsp 554  nntps 563  submission 587  ipp 631
  ldaps 636  domain-s 853  rsync 873  ftps-data 989  ftps 990  telnets 992
  imaps 993  ircs 994  pop3s 995  socks 1080  openvpn 1194  ms-sql-s 1433
  ms-sql-m 1434  oracle 1521  h323hostcall 1720  mqtt 1883  radius 1812
  nfs 2049  docker 2375  docker-s 2376  etcd-client 2379  etcd-server 2380
  squid 3128  iscsi-target 3260  mysql 3306  ms-wbt-server 3389  svn 3690
  subversion 3690  epmd 4369  rfb 5900  vnc 5900  postgresql 5432  postgres 5432
  amqps 5671  amqp 5672  sip 5060  sips 5061  xmpp-client 5222  xmpp-server 5269
  x11 6000  redis 6379  git 9418  ircu 6667  ircs-u 6697  http-alt 8080
  webcache 8080  https-alt 8443  secure-mqtt 8883  elasticsearch 9200
  memcache 11211  memcached 11211  mongodb 27017
`;

const UDP = `
  echo 7  discard 9  daytime 13  chargen 19  time 37  tacacs 49  domain 53
  bootps 67  bootpc 68  tftp 69  kerberos 88  ntp 123  netbios-ns 137
  netbios-dgm 138  snmp 161  snmptrap 162  https 443  isakmp 500  syslog 514
  rip 520  domain-s 853  openvpn 1194  radius 1812  radius-acct 1813  sip 5060
  mdns 5353  memcache 11211
`;

function table(text: string): ReadonlyMap<string, number> {
  const words = text.trim().split(/\s+/);
  const map = new Map<string, number>();
  for (let i = 0; i < words.length; i += 2) {
    map.set(words[i]!, Number(words[i + 1]));
  }
  return map;
}

/** Ports by protocol and lower-case name. */
export const SERVICES: {
  readonly tcp: ReadonlyMap<string, number>;
  readonly udp: ReadonlyMap<string, number>;
} = { tcp: table(TCP), udp: table(UDP) };
