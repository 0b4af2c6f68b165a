/* Problem details (RFC 9457): every error response of this program, application/problem+json. */
#ifndef SKALD_HTTP_PROBLEM_H
#define SKALD_HTTP_PROBLEM_H

#include "http/http.h"

typedef struct Problem {
  int code;    /* base/err.h */
  Str detail;  /* absent: none */
  Str pointer; /* RFC 6901 to the member at fault; absent: none */
  Str members; /* more members as ready JSON text, without braces; absent: none */
  Str title;   /* absent: the code's own */
} Problem;

/* Makes reply the response for it. Retryable errors carry Retry-After. */
void problem_reply(Arena *arena, const Problem *problem, HttpReply *reply);
/* What an error response of a service says to people: a problem's detail, else its title, else the body's beginning. */
Str problem_text(Arena *arena, Str body);

#endif
