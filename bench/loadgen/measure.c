// What is measured, and when: clocks, the window of measurement, latencies.

#include "loadgen.h"

#include <sys/resource.h>
#include <time.h>

uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

double cpu_seconds(void) {
  struct rusage r;
  getrusage(RUSAGE_SELF, &r);
  return r.ru_utime.tv_sec + r.ru_stime.tv_sec +
         (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

struct window window_begin(void) {
  uint64_t start = now_ns() + (uint64_t)(opt.warmup * 1e9);
  return (struct window){
      .start = start, .end = start + (uint64_t)(opt.seconds * 1e9)};
}

enum step window_step(struct window *w) {
  uint64_t t = now_ns();
  if (w->open) return t < w->end ? MEASURING : OVER;
  if (t < w->start) return WARMING;
  w->open = true;
  w->start = t;
  w->cpu = cpu_seconds();
  return OPENED;
}

double window_report(struct window *w, const char *mode) {
  double seconds = (now_ns() - w->start) / 1e9;
  printf("{\"mode\":\"%s\",\"seconds\":%.3f,\"client_cpu\":%.3f,"
         "\"errors\":%" PRIu64 ",\"last_error\":%d",
         mode, seconds, (cpu_seconds() - w->cpu) / seconds, errors, last_error);
  return seconds;
}

void record(struct latencies *l, uint64_t ns) {
  int power = ns ? 63 - __builtin_clzll(ns) : 0;
  int sub = power >= SUB_BITS ? (ns >> (power - SUB_BITS)) & (SUB - 1) : 0;
  l->buckets[power * SUB + sub]++;
  l->count++;
  if (ns > l->max) l->max = ns;
}

static double percentile_us(const struct latencies *l, double p) {
  uint64_t rank = (uint64_t)(p * l->count), seen = 0;
  for (int i = 0; i < 64 * SUB; i++) {
    seen += l->buckets[i];
    if (seen <= rank) continue;
    int power = i / SUB, sub = i % SUB;
    if (power < SUB_BITS) return (1ull << power) / 1e3;
    return ((uint64_t)(SUB + sub) << (power - SUB_BITS)) / 1e3;
  }
  return 0;
}

void report_latencies(const struct latencies *l, const char *prefix) {
  printf(",\"%sp50_us\":%.1f,\"%sp99_us\":%.1f,\"%smax_us\":%.1f", prefix,
         percentile_us(l, .5), prefix, percentile_us(l, .99), prefix,
         l->max / 1e3);
}
