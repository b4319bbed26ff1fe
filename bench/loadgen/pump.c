#include "loadgen.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

// As many bytes as will go; `sending` is false where the server alone sends.
int pump(const char *mode, bool sending) {
  struct epoll_event events[EVENTS];
  int open = connect_all(opt.connections, false);
  uint32_t interest = EPOLLIN | (sending ? EPOLLOUT : 0);
  for (int i = 0; i < opt.connections; i++) {
    if (peers[i].fd >= 0) watch(&peers[i], interest, EPOLL_CTL_MOD);
  }
  uint64_t sent = 0, received = 0;
  struct window w = window_begin();
  enum step step;
  while ((step = window_step(&w)) != OVER) {
    if (step == OPENED) sent = received = 0;
    int k = epoll_wait(epoll_fd, events, EVENTS, TICK_MS);
    for (int i = 0; i < k; i++) {
      struct peer *p = events[i].data.ptr;
      if (events[i].events & EPOLLIN) {
        // TCP discards what MSG_TRUNC asks for: the client copies nothing, and
        // is not the limit (tcp(7)).
        ssize_t n = recv(p->fd, in, READ_SIZE, MSG_TRUNC);
        if (n > 0) received += (uint64_t)n;
        else if (n == 0) lose(p, EARLY_EOF);
        else if (errno != EAGAIN) lose(p, errno);
      }
      if (p->fd >= 0 && sending && (events[i].events & EPOLLOUT)) {
        ssize_t n = send(p->fd, out, opt.size, MSG_NOSIGNAL);
        if (n > 0) sent += (uint64_t)n;
        else if (errno != EAGAIN) lose(p, errno);
      }
    }
  }
  double seconds = window_report(&w, mode);
  // What came back counts: the rest may still lie in the kernel's buffers.
  printf(",\"rate\":%.2f,\"sent\":%.2f,\"connections\":%d}\n",
         received / seconds / 1e6, sent / seconds / 1e6, open);
  return 0;
}
