/* The HTTP server in a process of its own, and a client of raw bytes. A request's response shows what the handler got:
 * "METHOD target body". */
#ifndef SKALD_TEST_UNIT_HTTP_SERVER_PROCESS_H
#define SKALD_TEST_UNIT_HTTP_SERVER_PROCESS_H

#include "base/buf.h"
#include "http/server.h"

#include <sys/types.h>

typedef struct Server {
  int port;
  pid_t pid;
} Server;

typedef struct Responses {
  int count; /* of responses that were complete, without interim ones */
  int status[64];
  bool is_problem[64], says_close[64];
  Str head[64], body[64]; /* of the same; body: by Content-Length */
  Str rest;               /* behind them */
} Responses;

/* Fills in what the configuration leaves open: the socket, the echoing handler, generous limits. The process ends with
 * the test program. */
void server_start(Server *server, HttpServerConfig config);
int server_stop(Server *server, int number); /* returns the status of its end */
int client_connect(const Server *server);
void client_send(int fd, Str bytes, size_t part); /* so many bytes at a time, as long as the server takes them */
/* Closes the client's direction if told so; everything until the server's end, or for at most so long. */
Str client_receive(Arena *arena, int fd, bool shut, int ms);
Responses read_responses(Str bytes, bool of_head);
/* All of these in one: a connection, the bytes, what came back. */
Responses exchange(Arena *arena, const Server *server, Str bytes, size_t part);

#endif
