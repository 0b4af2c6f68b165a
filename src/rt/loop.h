/* The event loop: one per process, one thread. Everything in rt/ that waits does so through it; nothing above db/ and
 * http/ sees libuv. A pass of the loop: run the ready fibers, call the before-poll hooks (which send what the fibers
 * asked for), then sleep in poll until something happens. */
#ifndef SKALD_RT_LOOP_H
#define SKALD_RT_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct uv_loop_s;

void loop_init(void);            /* once per process, after fork */
struct uv_loop_s *loop_uv(void); /* for the files of rt/ that wrap a library */
void loop_run(void);             /* until loop_stop */
void loop_stop(void);
void loop_resume(void);     /* takes an earlier stop back, for another loop_run */
int64_t loop_busy_us(void); /* since loop_init, without the time it slept in poll */

/* fn is called once per pass of the loop, after the fibers ran and before it sleeps. At most 16 hooks. */
void loop_before_poll(void (*fn)(void *arg), void *arg);

/* fn is called in the loop (never in signal context) for each SIGTERM/SIGINT; later calls replace fn. */
void loop_on_terminate(void (*fn)(void));
/* The same for SIGHUP, which otherwise ends the process. Once per loop. */
void loop_on_hangup(void (*fn)(void));

#endif
