#include "loadgen.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

// Connections that say nothing (-s 0), or nothing after one request. Two lines:
// once all are open, and, when stdin has ended, how many still are.
int idle(void) {
  uint64_t start = now_ns();
  int open = connect_all(opt.connections, opt.size > 0);
  printf("{\"mode\":\"idle\",\"connections\":%d,\"seconds\":%.3f,"
         "\"errors\":%" PRIu64 ",\"last_error\":%d}\n",
         open, (now_ns() - start) / 1e9, errors, last_error);
  fflush(stdout);
  struct pollfd until = {.fd = 0, .events = POLLIN};
  while (poll(&until, 1, MAX_SECONDS * 1000) > 0) {
    if (read(0, in, READ_SIZE) <= 0) break;
  }
  int alive = 0;
  for (int i = 0; i < opt.connections; i++) {
    char byte;
    int fd = peers[i].fd;
    if (fd < 0) continue;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n > 0 || (n < 0 && errno == EAGAIN)) alive++;
  }
  printf("{\"mode\":\"idle\",\"alive\":%d}\n", alive);
  return 0;
}
