/* Idempotency-Key: statements per schema, and the replay of first responses. */
#include "service/idempotency.h"

#include "log/log.h"
#include "metrics/metrics.h"
#include "rt/clock.h"
#include "rt/fiber.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_MAX            255
#define RETENTION_EVERY_US (3600 * SECONDS)
#define EXPIRE_US          (10 * SECONDS)
#define EXPIRE_MAX         1000
#define RESPONSES          16

enum { REPLAYED, MISMATCHED, IN_PROGRESS, HITS };

typedef struct IdempotencySql {
  Sql find, insert, finish, forget, expire;
  struct {
    const Sql *plain;
    Sql keyed;
  } responses[RESPONSES]; /* made when first needed, kept because statements are known by address */
  int response_count;
  Metric *hits[HITS];
} IdempotencySql;

static const char *text(const char *format, const char *schema) {
  char *out;
  if (asprintf(&out, format, schema) < 0)
    die("out of memory for SQL");
  return out;
}

static void add_metrics(IdempotencySql *k, const char *service) {
  static const MetricFamily hits = {.type = METRIC_COUNTER,
                                    .name = "skald_idempotency_hits_total",
                                    .help = "Requests whose Idempotency-Key was known."};
  static const char *const outcomes[HITS] = {"outcome=\"replayed\"", "outcome=\"mismatched\"",
                                             "outcome=\"in_progress\""};
  char labels[64];
  snprintf(labels, sizeof(labels), "service=\"%s\"", service);
  for (int i = 0; i < HITS; i++)
    k->hits[i] = metric_in(&hits, labels, outcomes[i]);
}

void idempotency_prepare(Service *s) {
  const char *schema = s->def->schema;
  s->keys = calloc(1, sizeof(*s->keys));
  if (!s->keys)
    die("out of memory for the idempotency of %s", s->def->name);
  add_metrics(s->keys, s->def->name);
  s->keys->find.text = text("SELECT fingerprint = sha256(convert_to($2, 'UTF8')), coalesce(status, 0), body"
                            " FROM %s.idempotency WHERE key = $1",
                            schema);
  s->keys->insert.text = text("INSERT INTO %s.idempotency (key, fingerprint, status, body)"
                              " VALUES ($1, sha256(convert_to($2, 'UTF8')), $3, $4)",
                              schema);
  s->keys->finish.text = text("UPDATE %s.idempotency SET status = $2, body = $3 WHERE key = $1 AND status = 0", schema);
  s->keys->forget.text = text("DELETE FROM %s.idempotency WHERE key = $1", schema);
  /* In portions: one statement for all may take longer than a statement may, and then nothing would ever be deleted. */
  s->keys->expire.text = text("DELETE FROM %1$s.idempotency WHERE ctid = ANY (ARRAY(SELECT ctid FROM %1$s.idempotency"
                              " WHERE created_at < now() - interval '24 hours' AND status <> 0 LIMIT $1"
                              " FOR UPDATE SKIP LOCKED))",
                              schema);
}

/* What the fingerprint is taken of: the body as it came, whether or not the route reads it. No keyed route reads the
 * query. The format is stored with every key, so it must not change. */
static Str request_text(const Req *req) {
  return arena_printf(req->arena, "%.*s %.*s %.*s", STR_FMT(req->http->method), STR_FMT(req->http->path),
                      STR_FMT(req->http->body));
}

/* A structured-field string, or the bare text many clients send. */
static int read_key(Req *req, Str header) {
  if (header.n >= 2 && header.p[0] == '"' && header.p[header.n - 1] == '"')
    header = (Str){header.p + 1, header.n - 2};
  bool printable = header.n > 0 && header.n <= KEY_MAX;
  for (size_t i = 0; i < header.n && printable; i++)
    printable = header.p[i] > ' ' && header.p[i] < 0x7f;
  if (!printable)
    return fail(req, E_MALFORMED, NULL, "Idempotency-Key must be 1 to %d printable ASCII characters", KEY_MAX);
  req->key = header;
  return 0;
}

static int replay(Req *req, const DbResult *found) {
  Metric **hits = req->service->keys->hits;
  int64_t status;
  if (!str_eq(db_cell(found, 0, 0), STR("t"))) {
    metric_add(hits[MISMATCHED], 1);
    return fail(req, E_KEY_REUSED, NULL, "this Idempotency-Key was used with another request");
  }
  TRY(str_to_int(db_cell(found, 0, 1), &status));
  if (status == 0) {
    metric_add(hits[IN_PROGRESS], 1);
    return fail(req, E_IN_PROGRESS, NULL, "the first request with this Idempotency-Key is still running");
  }
  metric_add(hits[REPLAYED], 1);
  *req->reply = (HttpReply){.status = (int)status, .body = db_cell(found, 0, 2)};
  if (status >= 400)
    req->reply->content_type = "application/problem+json";
  http_reply_header(req->reply, STR("idempotent-replayed"), STR("true"));
  return 1;
}

int idempotency_begin(Req *req) {
  Str header = http_header(req->http, STR("idempotency-key"));
  if (!header.p || !(req->route->flags & ROUTE_KEYED))
    return 0;
  TRY(read_key(req, header));
  DbResult found;
  TRY(req_query(req, DB_STMT(&req->service->keys->find, V_TEXT(req->key), V_TEXT(request_text(req))), &found));
  return found.rows ? replay(req, &found) : 0;
}

static DbStmt statement(Arena *arena, const Sql *sql, const DbValue *values, int count) {
  return (DbStmt){.sql = sql, .values = arena_copy(arena, values, sizeof(*values) * (size_t)count), .count = count};
}

DbStmt idempotency_insert(Req *req, int status, Str body) {
  assert(req->key.p && req->route->flags & ROUTE_KEYED);
  const DbValue values[] = {V_TEXT(req->key), V_TEXT(request_text(req)), V_INT(status), V_TEXT(body)};
  return statement(req->arena, &req->service->keys->insert, values, 4);
}

DbStmt idempotency_finish(Service *s, Arena *arena, Str key, int status, Str body) {
  const DbValue values[] = {V_TEXT(key), V_INT(status), V_TEXT(body)};
  return statement(arena, &s->keys->finish, values, 3);
}

DbStmt idempotency_forget(Service *s, Arena *arena, Str key) {
  return statement(arena, &s->keys->forget, &V_TEXT(key), 1);
}

int idempotency_lost_race(Req *req) {
  int rc = req->key.p ? idempotency_begin(req) : 0;
  return rc == 0 ? E_CONFLICT : rc;
}

static const Sql *keyed_response(Service *s, DbStmt response) {
  IdempotencySql *k = s->keys;
  for (int i = 0; i < k->response_count; i++)
    if (k->responses[i].plain == response.sql)
      return &k->responses[i].keyed;
  if (k->response_count == RESPONSES)
    die("more than %d statements that give a response", RESPONSES); /* as many as there are routes */
  k->responses[k->response_count].plain = response.sql;
  char *out;
  if (asprintf(&out,
               "WITH answer (body) AS (%s) UPDATE %s.idempotency k SET status = 200, body = answer.body"
               " FROM answer WHERE k.key = $%d RETURNING answer.body",
               response.sql->text, s->def->schema, response.count + 1) < 0)
    die("out of memory for SQL");
  k->responses[k->response_count].keyed.text = out;
  return &k->responses[k->response_count++].keyed;
}

/* The statement that gives the response, and keeps it under the key too. */
static DbStmt keep_response(Req *req, DbStmt response) {
  DbValue *values = ARENA_ARRAY(req->arena, DbValue, (size_t)response.count + 1);
  memcpy(values, response.values, sizeof(*values) * (size_t)response.count);
  values[response.count] = V_TEXT(req->key);
  return (DbStmt){.sql = keyed_response(req->service, response), .values = values, .count = response.count + 1};
}

static int commit_keyed(Req *req, DbStmt key, const DbStmt *statements, int count, DbResult *results) {
  DbStmt *all = ARENA_ARRAY(req->arena, DbStmt, (size_t)count + 1);
  DbResult *all_results = ARENA_ARRAY(req->arena, DbResult, (size_t)count + 1);
  all[0] = key;
  memcpy(all + 1, statements, sizeof(*all) * (size_t)count);
  int rc = db_group(req->db, req->arena, all, count + 1, all_results, req->http->deadline_us);
  if (rc < 0)
    return rc == E_EXISTS ? idempotency_lost_race(req) : rc;
  if (results)
    memcpy(results, all_results + 1, sizeof(*results) * (size_t)count);
  return 0;
}

int idempotency_commit(Req *req, const DbStmt *statements, int count, DbResult *results) {
  if (!req->key.p)
    return db_group(req->db, req->arena, statements, count, results, req->http->deadline_us);
  assert(req->reply->status); /* what is kept with it */
  DbStmt key = idempotency_insert(req, req->reply->status, req->reply->body);
  return commit_keyed(req, key, statements, count, results);
}

int idempotency_commit_response(Req *req, const DbStmt *statements, int count, DbStmt response, DbResult *ret_results) {
  DbStmt *all = ARENA_ARRAY(req->arena, DbStmt, (size_t)count + 1);
  DbResult *results = ARENA_ARRAY(req->arena, DbResult, (size_t)count + 1);
  memcpy(all, statements, sizeof(*all) * (size_t)count);
  all[count] = req->key.p ? keep_response(req, response) : response;
  int rc;
  if (req->key.p)
    rc = commit_keyed(req, idempotency_insert(req, 0, (Str){0}), all, count + 1, results);
  else
    rc = db_group(req->db, req->arena, all, count + 1, results, req->http->deadline_us);
  if (rc != 0)
    return rc;
  if (results[count].rows != 1)
    return E_INTERNAL;
  memcpy(ret_results, results, sizeof(*results) * (size_t)count);
  return reply_json(req, 200, db_cell(&results[count], 0, 0));
}

/* Returns 1: there may be more. */
static int expire_portion(Service *s, Arena *arena) {
  DbResult gone;
  TRY(db_exec(s->db, arena, DB_STMT(&s->keys->expire, V_INT(EXPIRE_MAX)), &gone, clock_now_us() + EXPIRE_US));
  return gone.affected == EXPIRE_MAX;
}

static void expire(Service *s, Arena *arena) {
  int rc = 1;
  while (rc > 0) {
    rc = expire_portion(s, arena);
    arena_reset(arena);
  }
  if (rc < 0)
    LOG(WARN, "idempotency", "%s: cannot delete expired keys: %s", s->def->name, err_info(rc)->title);
}

void idempotency_retention(void *service) {
  Service *s = service;
  SCOPED_ARENA arena = arena_new();
  do
    expire(s, arena);
  while (fiber_sleep(RETENTION_EVERY_US) == 0);
}
