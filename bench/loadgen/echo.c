#include "loadgen.h"

#include <string.h>
#include <sys/epoll.h>

#define NEVER UINT64_MAX

// Request, reply, request: each connection has one request out at any time.
// Beside them, with -q, some that ask only now and then: what a user feels on a
// busy server. Several, because which connections starve is a matter of luck.
int echo(void) {
  static struct latencies busy, quiet;
  struct epoll_event events[EVENTS];
  int n = opt.connections, all = n + (opt.quiet_ms ? QUIET : 0);
  // With one reply each before it starts. Else those that the server has not
  // accepted yet wait behind the busy ones, for seconds in Node, and the row
  // would show how servers accept under load.
  int open = connect_all(all, true);
  for (int i = 0; i < n; i++) {
    peers[i].started = now_ns();
    if (peers[i].fd >= 0) send_request(&peers[i]);
  }
  uint64_t pause = opt.quiet_ms * 1000000ull, next[QUIET] = {0};
  struct window w = window_begin();
  enum step step;
  while ((step = window_step(&w)) != OVER) {
    if (step == OPENED) {
      memset(&busy, 0, sizeof busy);
      memset(&quiet, 0, sizeof quiet);
      for (int i = 0; i < all; i++) peers[i].served = 0;
    }
    for (int i = n; i < all; i++) {
      if (peers[i].fd < 0 || now_ns() < next[i - n]) continue;
      next[i - n] = NEVER;  // until it is answered
      peers[i].started = now_ns();
      send_request(&peers[i]);
    }
    int k = epoll_wait(epoll_fd, events, EVENTS, TICK_MS);
    for (int i = 0; i < k; i++) {
      struct peer *p = events[i].data.ptr;
      if (!reply_complete(p)) continue;
      uint64_t t = now_ns();
      p->served++;
      if (p >= peers + n) {
        record(&quiet, t - p->started);
        next[p - peers - n] = t + pause;
        continue;
      }
      record(&busy, t - p->started);
      p->started = t;
      send_request(p);
    }
  }
  // A question that is still open has waited at least until now.
  for (int i = n; i < all; i++) {
    if (next[i - n] == NEVER) record(&quiet, now_ns() - peers[i].started);
  }
  uint64_t least = UINT64_MAX, most = 0;
  for (int i = 0; i < n; i++) {
    if (peers[i].served < least) least = peers[i].served;
    if (peers[i].served > most) most = peers[i].served;
  }
  double seconds = window_report(&w, "echo");
  report_latencies(&busy, "");
  if (all > n) report_latencies(&quiet, "quiet_");
  printf(",\"rate\":%.1f,\"least\":%" PRIu64 ",\"most\":%" PRIu64
         ",\"connections\":%d}\n",
         busy.count / seconds, least, most, open);
  return 0;
}
