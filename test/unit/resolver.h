/* The system's resolver, replaced for a test program: names in .test are scripted, all others are looked up as ever.
 * To be included once, by the program's only file. */
#ifndef SKALD_TEST_UNIT_RESOLVER_H
#define SKALD_TEST_UNIT_RESOLVER_H

#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static struct {
  pthread_t loop;              /* the thread that must not look up names */
  atomic_int in_loop;          /* names that it did look up */
  atomic_int silent, answered; /* lookups of names in silent.test: begun, and ended */
  sem_t silence;               /* posted once for each of them that may end */
} resolver;

__attribute__((constructor)) static void prepare_resolver(void) {
  resolver.loop = pthread_self();
  sem_init(&resolver.silence, 0, 0);
}

typedef int Lookup(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **ret);

static int numeric(const char *address, struct addrinfo **ret) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
  Lookup *real = (Lookup *)(uintptr_t)dlsym(RTLD_NEXT, "getaddrinfo");
  return real(address, NULL, &hints, ret);
}

static int two_addresses(struct addrinfo **ret) {
  int rc = numeric("127.0.0.1", ret);
  return rc ? rc : numeric("127.0.0.2", &(*ret)->ai_next);
}

#define SILENCE_S 8 /* longer than anybody may wait for it */

static int after_silence(struct addrinfo **ret) {
  if (pthread_equal(pthread_self(), resolver.loop))
    return EAI_AGAIN; /* counted as a fault already */
  resolver.silent++;
  struct timespec end;
  clock_gettime(CLOCK_REALTIME, &end);
  end.tv_sec += SILENCE_S;
  while (sem_timedwait(&resolver.silence, &end) < 0 && errno == EINTR)
    continue;
  resolver.answered++;
  return numeric("127.0.0.3", ret);
}

/* Ends lookups that earlier tests left behind: they would take what is posted for others. */
static inline void resolver_forget(void) {
  for (; resolver.answered < resolver.silent; sched_yield())
    sem_post(&resolver.silence);
  while (sem_trywait(&resolver.silence) == 0)
    continue;
  resolver.answered = resolver.silent = 0;
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **ret) {
  const char *name = host ? host : "";
  if (pthread_equal(pthread_self(), resolver.loop) && host && !(hints && hints->ai_flags & AI_NUMERICHOST))
    resolver.in_loop++;
  if (!strcmp(name, "two.test"))
    return two_addresses(ret);
  if (strstr(name, "none.test"))
    return EAI_NONAME;
  if (strstr(name, "silent.test"))
    return after_silence(ret);
  Lookup *real = (Lookup *)(uintptr_t)dlsym(RTLD_NEXT, "getaddrinfo");
  return real(host, service, hints, ret);
}

#endif
