/* Req: one request as its handler sees it, and everything a handler does with it: path parameters, database, response.
 */
#ifndef SKALD_SERVICE_REQ_H
#define SKALD_SERVICE_REQ_H

#include "service/def.h"

#define ROUTE_PARAMS 4

struct Req {
  HttpRequest *http;
  Arena *arena;
  Service *service;
  Db *db;
  HttpReply *reply;
  const Route *route;
  Str params[ROUTE_PARAMS]; /* the values of {…} in the route's path, in order */
  Str key;                  /* Idempotency-Key, absent when none came or the route takes none */
  Str pointer;              /* of the problem: RFC 6901, absent unless a field is at fault */
  Str detail;               /* of the problem: a sentence for people */
};

/* Responses. They render at once, so what they are given may change afterwards. All return 0. */
int reply_object(Req *req, int status, const Field *fields, const void *object);
int reply_list(Req *req, int status, const Field *fields, size_t size, List list);
int reply_status(Req *req, bool status); /* {"status":true} */
int reply_json(Req *req, int status, Str json);
/* A problem (RFC 9457). pointer and format may be NULL. Returns code, for "return fail(…)". */
int fail(Req *req, int code, const char *pointer, const char *format, ...) __attribute__((format(printf, 4, 5)));

MUST_CHECK int req_uuid(Req *req, int param, Uuid *ret);   /* path parameter; 400 problem */
MUST_CHECK int req_money(Req *req, int param, Money *ret); /* path parameter, > 0 */
MUST_CHECK int req_time(Req *req, int param, LocalTime *ret);
/* Text for people, of at most max bytes: not blank, without control characters. 400 problem. */
MUST_CHECK int req_text(Req *req, int param, size_t max, Str *ret);

/* The database, with the request's arena and deadline. */
MUST_CHECK int req_query(Req *req, DbStmt statement, DbResult *result);
/* One row into object; E_NOT_FOUND without one. */
MUST_CHECK int req_row(Req *req, DbStmt statement, const Field *fields, void *object);
/* UPDATE or DELETE … RETURNING: responds {"status": true} if a row was changed. */
MUST_CHECK int req_touch(Req *req, DbStmt statement);
/* A page of rows: the statement's last two parameters are added here: "after" and int "limit"; its last column is the
 * key to go on from, an int (key F_INT, starting after 0) or an id (key F_UUID, starting after the nil id). Takes
 * ?page_size and ?page_token; the next page's address goes into a Link header (RFC 8288). */
MUST_CHECK int req_page(Req *req, const Sql *sql, const DbValue *values, int count, const Field *fields, size_t size,
                        FieldType key);

#endif
