// loadgen: a load generator for TCP servers on loopback. Linux only.
//
// One thread and one epoll instance drive all connections, so that the client
// needs one core and no more; what it used of that core is in its report.
// One line of JSON on stdout. Bounded: at most 100,000 connections, 600 s.
//
//   loadgen echo   -p PORT [-n 64 -s 64 -r 64]  request, reply, request, …
//                  [-q MS]                      and ten quiet clients beside them
//   loadgen stream -p PORT [-n 4 -s 65536]      write and read back, no pauses
//   loadgen source -p PORT [-n 4]               read what the server sends
//   loadgen churn  -p PORT [-n 32 -s 64]        connect, request, reply, close
//                  [-e]                         FIN first, wait for the server's
//                  [-s 0]                       connect, wait for FIN, close
//                  [-c COUNT]                   until so many are done
//   loadgen idle   -p PORT [-n 10000 -s 0]      connect, hold until stdin ends
//   loadgen flood  -p PORT [-n 1000 -b 100]     connect, reset, in bursts
//   loadgen accept                              a server: accept, wait for EOF
//
//   -d SECONDS  measure for so long (3)    -w SECONDS  after such a warm-up (1)
//   -l COUNT    connects in flight while connections are set up (128)

#include "loadgen.h"

#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

struct options opt = {
    .seconds = 3, .warmup = 1, .in_flight = 128, .burst = 100};
int epoll_fd;
char *out, *in;

static double number(const char *text, double most) {
  char *end;
  double value = strtod(text, &end);
  if (*text && !*end && value >= 0 && value <= most) return value;
  fprintf(stderr, "loadgen: %s is not between 0 and %.0f\n", text, most);
  exit(2);
}

static void parse(int count, char **args) {
  bool reply_given = false;
  optind = 2;
  for (int o; (o = getopt(count, args, "p:n:s:r:d:w:l:q:b:c:e")) != -1;) {
    switch (o) {
      case 'p': opt.port = (int)number(optarg, 65535); break;
      case 'n': opt.connections = (int)number(optarg, MAX_CONNECTIONS); break;
      case 's': opt.size = (size_t)number(optarg, MAX_SIZE); break;
      case 'r': opt.reply = (size_t)number(optarg, MAX_SIZE); break;
      case 'd': opt.seconds = number(optarg, MAX_SECONDS); break;
      case 'w': opt.warmup = number(optarg, MAX_SECONDS); break;
      case 'l': opt.in_flight = (int)number(optarg, MAX_CONNECTIONS); break;
      case 'q': opt.quiet_ms = (int)number(optarg, 10000); break;
      case 'b': opt.burst = (int)number(optarg, MAX_CONNECTIONS); break;
      case 'c': opt.count = (uint64_t)number(optarg, 1e9); break;
      case 'e': opt.half_close = true; break;
      default: exit(2);
    }
    reply_given |= o == 'r';
  }
  if (!reply_given) opt.reply = opt.size;
  if (opt.count) opt.warmup = 0;  // all of them count
  if (opt.burst < 1) opt.burst = 1;
  if (opt.in_flight < 1) opt.in_flight = 1;
}

struct mode {
  const char *name;
  int connections;
  size_t size;
};

static const struct mode modes[] = {
    {"echo", 64, 64},   {"stream", 4, 64 * 1024}, {"source", 4, 0},
    {"churn", 32, 64},  {"idle", 10000, 0},       {"flood", 1000, 0},
    {"accept", 0, 0},
};

static int run(const char *name) {
  if (!strcmp(name, "echo")) return echo();
  if (!strcmp(name, "stream")) return pump(name, true);
  if (!strcmp(name, "source")) return pump(name, false);
  if (!strcmp(name, "churn")) return churn();
  if (!strcmp(name, "idle")) return idle();
  if (!strcmp(name, "flood")) return flood();
  return accept_mode();
}

int main(int count, char **args) {
  const struct mode *mode = NULL;
  for (size_t i = 0; count > 1 && i < sizeof modes / sizeof *modes; i++) {
    if (!strcmp(args[1], modes[i].name)) mode = &modes[i];
  }
  if (!mode) {
    fprintf(stderr, "usage: loadgen MODE [options], see main.c\n");
    return 2;
  }
  opt.connections = mode->connections;
  opt.size = mode->size;
  parse(count, args);
  // Whatever hangs, the kernel ends this process in time.
  alarm(2 * MAX_SECONDS);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  in = malloc(READ_SIZE);
  out = malloc(MAX_SIZE);
  memset(out, 'x', MAX_SIZE);
  size_t most = (size_t)opt.connections + QUIET;
  peers = calloc(most, sizeof *peers);
  for (size_t i = 0; i < most; i++) peers[i].fd = -1;
  return run(mode->name);
}
