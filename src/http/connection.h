/* Clients' connections: bytes in, requests out; responses in, bytes out, in order and one request at a time. Private to
 * this room. What a connection may hold is bounded: one head or a few KiB of pipelined requests, one body, one
 * response. So is how long it may take for each of them. */
#ifndef SKALD_HTTP_CONNECTION_H
#define SKALD_HTTP_CONNECTION_H

#include "http/framing.h"
#include "http/http.h"

#include <uv.h>

typedef enum ConnectionState { /* what it waits for */
                               CONNECTION_HEAD,
                               CONNECTION_BODY,
                               CONNECTION_HANDLER,
                               CONNECTION_WRITTEN, /* the client takes the response */
                               CONNECTION_END,     /* all is said; the client closes */
                               CONNECTION_CLOSED
} ConnectionState;

typedef enum HttpWait { WAIT_IDLE, WAIT_HEAD, WAIT_PROBE, WAIT_BODY, WAIT_WRITE, WAIT_END, WAIT_TURN, WAITS } HttpWait;

typedef struct HttpConnection HttpConnection;

typedef struct HttpExchange { /* one request and its response */
  HttpRequest request;
  HttpReply reply;
  HttpConnection *connection; /* NULL when it is gone */
  struct HttpParser *parser;
  Buf body; /* of malloc's */
} HttpExchange;

struct HttpConnection {
  uv_tcp_t tcp; /* first: libuv hands it over */
  ConnectionState state;
  HttpWait wait; /* WAITS: for none of these */
  int64_t due_us;
  HttpConnection *previous, *next; /* of those with the same wait */
  Framing framing;
  Buf input;              /* of malloc's: what came and is not read yet */
  HttpExchange *exchange; /* from a head's end until it has its response */
  size_t queued;          /* bytes of the response that the client had not taken when it was last looked at */
  int64_t write_end_us;
  bool reserve, served; /* beyond the maximum of connections; its response was no refusal */
  bool last, ended;     /* no request after this one; the client's end was read */
  bool paused, busy;    /* nothing is read; the reader is at work */
  bool is_head, owes;   /* a response without its body; one that is not written yet */
};

/* What the server makes of it. */
typedef struct ConnectionEvents {
  /* A head is complete: 0, or the code and detail of a refusal. */
  int (*head)(HttpConnection *c, Str method, Str path, const char **ret_detail);
  void (*request)(HttpConnection *c, HttpExchange *x); /* complete; it gets one connection_respond or _refuse */
  void (*refused)(Str method, int status);
  void (*sent)(void); /* a response was written, or its client has gone */
  void (*closed)(HttpConnection *c);
} ConnectionEvents;

void connections_init(const ConnectionEvents *events, int64_t idle_us);
int connections_unsent(void);        /* responses that are not written yet */
void connections_are_last(bool yes); /* each response closes its connection from now on */

HttpConnection *connection_new(void);
void connection_begin(HttpConnection *c); /* accepted */
void connection_close(HttpConnection *c); /* at once */
/* In a fiber or outside: writes the response to the connection's request. */
void connection_respond(HttpConnection *c, const HttpReply *reply);
/* The same with a problem. */
void connection_refuse(HttpConnection *c, int code, const char *detail);
void exchange_free(HttpExchange *x);

#endif
