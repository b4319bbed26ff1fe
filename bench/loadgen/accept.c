#include "loadgen.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

// The other side of a dialler: accepts, and resets a connection once its client
// has closed it, so that none stays in TIME_WAIT and takes a port out of use.
// Prints its port, and the rest when stdin ends.
int accept_mode(void) {
  struct epoll_event events[EVENTS];
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  struct sockaddr_in at = {.sin_family = AF_INET,
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof at;
  if (bind(listener, (struct sockaddr *)&at, sizeof at) < 0) return 1;
  if (listen(listener, SOMAXCONN) < 0) return 1;
  getsockname(listener, (struct sockaddr *)&at, &length);
  printf("%d\n", ntohs(at.sin_port));
  fflush(stdout);
  // Files are told apart by number here: fd 0 is stdin, where commands end.
  struct epoll_event e = {.events = EPOLLIN, .data.fd = listener};
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e);
  e.data.fd = 0;
  epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &e);
  uint64_t accepted = 0, closed = 0, start = now_ns();
  for (bool going = true; going;) {
    int k = epoll_wait(epoll_fd, events, EVENTS, -1);
    for (int i = 0; i < k; i++) {
      int fd = events[i].data.fd;
      if (fd == 0) {
        going = read(0, in, READ_SIZE) > 0;
      } else if (fd == listener) {
        int client;
        while ((client = accept4(fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
          accepted++;
          e.data.fd = client;
          epoll_ctl(epoll_fd, EPOLL_CTL_ADD, client, &e);
        }
      } else {
        ssize_t n = recv(fd, in, READ_SIZE, 0);
        if (n > 0 || (n < 0 && errno == EAGAIN)) continue;
        closed++;
        reset(fd);
      }
    }
  }
  double seconds = (now_ns() - start) / 1e9;
  printf("{\"mode\":\"accept\",\"accepted\":%" PRIu64 ",\"open\":%" PRIu64
         ",\"seconds\":%.3f,\"client_cpu\":%.3f}\n",
         accepted, accepted - closed, seconds, cpu_seconds() / seconds);
  return 0;
}
