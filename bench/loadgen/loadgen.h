#pragma once

#define _GNU_SOURCE
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_CONNECTIONS 100000
#define MAX_SECONDS 600
#define MAX_SIZE (1 << 20)
#define EVENTS 512
// How long to wait for events before looking at the clock.
#define TICK_MS 10
// Enough to empty a socket's receive buffer in one call or two.
#define READ_SIZE (256 * 1024)

// How many quiet clients there are beside the busy ones.
#define QUIET 10

// ------------------------------------------------------------------- main.c

extern struct options {
  int port, connections, in_flight, quiet_ms, burst;
  size_t size, reply;
  double seconds, warmup;
  bool half_close;
  uint64_t count;
} opt;

extern int epoll_fd;
extern char *out, *in;  // MAX_SIZE bytes to send, READ_SIZE to receive into

// ---------------------------------------------------------------- measure.c

uint64_t now_ns(void);
double cpu_seconds(void);

// The time that is measured: what happens before, while the server's code is
// compiled and its buffers find their size, does not count.
struct window {
  uint64_t start, end;
  double cpu;
  bool open;
};

enum step { WARMING, OPENED, MEASURING, OVER };

struct window window_begin(void);
// Where we are in the window; OPENED exactly once, for counters to restart.
enum step window_step(struct window *w);
// Ends the window and prints the part of the report that all modes have.
// Returns how long it was, in seconds.
double window_report(struct window *w, const char *mode);

// Buckets grow with the value: 64 of them per power of two, so a percentile is
// off by 1/64 at most, for any latency from a nanosecond to an hour.
#define SUB_BITS 6
#define SUB (1 << SUB_BITS)

struct latencies {
  uint64_t buckets[64 * SUB], count, max;
};

void record(struct latencies *l, uint64_t ns);
void report_latencies(const struct latencies *l, const char *prefix);

// ------------------------------------------------------------------- peer.c

// last_error for a server that closed where it should not have.
#define EARLY_EOF -1

enum phase { CONNECTING, IN_REPLY, IN_FIN, READY };

// One connection to the server.
struct peer {
  int fd;  // -1 while there is none
  enum phase phase;
  size_t got;        // bytes of the reply that have arrived
  uint64_t started;  // when the request began; churn: when the connect did
  uint64_t served;   // replies in the window
};

extern struct peer *peers;
extern uint64_t errors;
extern int last_error;

void failed(int error);
void hang_up(struct peer *p);
void lose(struct peer *p, int error);
void watch(struct peer *p, uint32_t events, int op);

int socket_at_next_address(int flags);
int connect_to_server(int fd);
void reset(int fd);

// Starts to connect; EPOLLOUT tells when that is over.
bool start_connect(struct peer *p);
bool finish_connect(struct peer *p);
// Opens n connections, `greet` with one request each that is answered.
// Returns how many are open.
int connect_all(int n, bool greet);

bool send_request(struct peer *p);
// Reads what is there; true when the reply is complete.
bool reply_complete(struct peer *p);

// ------------------------------------------------------- one file per mode

int echo(void);
int pump(const char *mode, bool sending);
int churn(void);
int idle(void);
int flood(void);
int accept_mode(void);
