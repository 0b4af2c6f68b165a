/* What a fiber's work is about: the log adds it to every line of that fiber. A fiber inherits it from the one that
 * starts it. */
#ifndef SKALD_RT_CONTEXT_H
#define SKALD_RT_CONTEXT_H

#include "base/trace.h"

/* The fields a line may have; docs/logs.md says what they are. */
typedef enum LogKey {
  LOG_NO_KEY,
  LOG_TRACE_ID,
  LOG_SPAN_ID,
  LOG_SAGA_ID,
  LOG_SAGA_TYPE,
  LOG_SAGA_STATE,
  LOG_ORDER_ID,
  LOG_USER_ID,
  LOG_STEP,
  LOG_REASON,
  LOG_EVENT_ID,
  LOG_HTTP_METHOD,
  LOG_HTTP_ROUTE,
  LOG_HTTP_STATUS,
  LOG_ERROR_CODE,
  LOG_DURATION,
} LogKey;

typedef struct FiberContext {
  Trace trace;                      /* its ids "" when there is none */
  char tracestate[TRACESTATE_TEXT]; /* to be passed on with it; "" when there is none */
  const char *component;            /* the service whose work it is; NULL: the process's */
  char saga_id[37];                 /* "" when there is none, as below */
  const char *saga_type;
  LogKey saga_subject; /* what else the saga's id is the id of: LOG_ORDER_ID, LOG_USER_ID; LOG_NO_KEY: nothing */
  char event_id[37];
} FiberContext;

#endif
