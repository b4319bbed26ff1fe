// Connections to the server: opening them, one request, one reply.

#include "loadgen.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

// Enough for a server whose accept queue overflows: the kernel repeats a lost
// SYN after 1, 3, 7, 15 and 31 s.
#define CONNECT_SECONDS 60

struct peer *peers;
uint64_t errors;
int last_error;

void failed(int error) {
  errors++;
  last_error = error;
}

void hang_up(struct peer *p) {
  close(p->fd);
  p->fd = -1;
}

void lose(struct peer *p, int error) {
  failed(error);
  hang_up(p);
}

void watch(struct peer *p, uint32_t events, int op) {
  struct epoll_event e = {.events = events, .data.ptr = p};
  epoll_ctl(epoll_fd, op, p->fd, &e);
}

// A socket bound to the next of 200 loopback addresses. A connection that we
// close first stays in TIME_WAIT for a minute; from one address the 28,000
// ephemeral ports would be used up within two seconds of churn.
int socket_at_next_address(int flags) {
  static unsigned turn;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
  if (fd < 0) return -1;
  int on = 1;
  // Without this bind() picks the port, and it may pick no port that any other
  // connection of that address has, whatever the destination.
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  struct sockaddr_in from = {
      .sin_family = AF_INET,
      .sin_addr.s_addr = htonl(0x7f000002 + turn++ % 200)};
  if (bind(fd, (struct sockaddr *)&from, sizeof from) == 0) return fd;
  close(fd);
  return -1;
}

int connect_to_server(int fd) {
  struct sockaddr_in to = {.sin_family = AF_INET,
                           .sin_port = htons(opt.port),
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  return connect(fd, (struct sockaddr *)&to, sizeof to);
}

bool start_connect(struct peer *p) {
  p->phase = CONNECTING;
  p->got = 0;
  p->started = now_ns();
  p->fd = socket_at_next_address(SOCK_NONBLOCK);
  if (p->fd < 0) return failed(errno), false;
  if (connect_to_server(p->fd) < 0 && errno != EINPROGRESS) {
    return lose(p, errno), false;
  }
  watch(p, EPOLLOUT, EPOLL_CTL_ADD);
  return true;
}

bool finish_connect(struct peer *p) {
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &length);
  if (error) return lose(p, error), false;
  return true;
}

bool send_request(struct peer *p) {
  p->got = 0;
  if (send(p->fd, out, opt.size, MSG_NOSIGNAL) == (ssize_t)opt.size) {
    return true;
  }
  // A request always fits: the reply to the one before has been read.
  return lose(p, errno), false;
}

bool reply_complete(struct peer *p) {
  ssize_t n = recv(p->fd, in, READ_SIZE, 0);
  if (n <= 0) {
    if (n == 0) lose(p, EARLY_EOF);
    else if (errno != EAGAIN) lose(p, errno);
    return false;
  }
  p->got += (size_t)n;
  return p->got >= opt.reply;
}

int connect_all(int n, bool greet) {
  struct epoll_event events[EVENTS];
  uint64_t deadline = now_ns() + CONNECT_SECONDS * 1000000000ull;
  int next = 0, in_flight = 0, settled = 0, open = 0;
  while (settled < n && now_ns() < deadline) {
    while (next < n && in_flight < opt.in_flight) {
      if (start_connect(&peers[next++])) in_flight++;
      else settled++;
    }
    int k = epoll_wait(epoll_fd, events, EVENTS, TICK_MS);
    for (int i = 0; i < k; i++) {
      struct peer *p = events[i].data.ptr;
      if (p->phase == READY) continue;
      bool ready = false;
      if (p->phase == CONNECTING) {
        ready = finish_connect(p) && !greet;
        if (p->fd >= 0) watch(p, EPOLLIN, EPOLL_CTL_MOD);
        if (p->fd >= 0 && greet && send_request(p)) p->phase = IN_REPLY;
      } else {
        ready = reply_complete(p);
      }
      if (ready) p->phase = READY, open++;
      if (ready || p->fd < 0) in_flight--, settled++;
    }
  }
  if (open < n) {
    fprintf(stderr, "loadgen: only %d of %d connected: %s\n", open, n,
            last_error > 0 ? strerror(last_error) : "closed by the server");
  }
  return open;
}

// close() with this sends RST instead of FIN.
void reset(int fd) {
  struct linger now = {.l_onoff = 1, .l_linger = 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close(fd);
}
