#include "loadgen.h"

#include <errno.h>
#include <unistd.h>

// Clients that connect and reset at once: `burst` back to back, the bursts
// spread evenly over the given seconds.
int flood(void) {
  uint64_t start = now_ns();
  int bursts = (opt.connections + opt.burst - 1) / opt.burst, done = 0;
  for (int b = 0; b < bursts; b++) {
    uint64_t due = start + (uint64_t)(opt.seconds * 1e9 * b / bursts);
    uint64_t t = now_ns();
    if (due > t) usleep((due - t) / 1000);
    for (int i = 0; i < opt.burst && done < opt.connections; i++, done++) {
      int fd = socket_at_next_address(0);
      if (fd < 0 || connect_to_server(fd) < 0) failed(errno);
      if (fd >= 0) reset(fd);
    }
  }
  printf("{\"mode\":\"flood\",\"connections\":%d,\"seconds\":%.3f,"
         "\"errors\":%" PRIu64 ",\"last_error\":%d}\n",
         done, (now_ns() - start) / 1e9, errors, last_error);
  return 0;
}
