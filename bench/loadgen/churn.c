#include "loadgen.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

// One step of a connection's short life; true when it is complete.
static bool churn_step(struct peer *p) {
  switch (p->phase) {
    case CONNECTING:
      if (!finish_connect(p)) return false;
      watch(p, EPOLLIN, EPOLL_CTL_MOD);
      p->phase = opt.size ? IN_REPLY : IN_FIN;
      if (opt.size) send_request(p);
      return false;
    case IN_REPLY:
      if (!reply_complete(p)) return false;
      if (!opt.half_close) return true;
      shutdown(p->fd, SHUT_WR);
      p->phase = IN_FIN;
      return false;
    default: {
      ssize_t n = recv(p->fd, in, READ_SIZE, 0);
      if (n == 0) return true;
      if (n < 0 && errno != EAGAIN) lose(p, errno);
      return false;
    }
  }
}

// Connect, request, reply, close, and again.
int churn(void) {
  static struct latencies lives;
  struct epoll_event events[EVENTS];
  struct window w = window_begin();
  enum step step;
  uint64_t finished = 0;
  while ((step = window_step(&w)) != OVER) {
    if (opt.count && finished >= opt.count) break;
    if (step == OPENED) memset(&lives, 0, sizeof lives);
    for (int i = 0; i < opt.connections; i++) {
      if (peers[i].fd < 0) start_connect(&peers[i]);
    }
    int k = epoll_wait(epoll_fd, events, EVENTS, TICK_MS);
    for (int i = 0; i < k; i++) {
      struct peer *p = events[i].data.ptr;
      if (churn_step(p)) {
        record(&lives, now_ns() - p->started);
        finished++;
        hang_up(p);
      }
      if (p->fd < 0) start_connect(p);
    }
  }
  double seconds = window_report(&w, "churn");
  report_latencies(&lives, "");
  printf(",\"rate\":%.1f,\"finished\":%" PRIu64 "}\n", lives.count / seconds,
         finished);
  return 0;
}
