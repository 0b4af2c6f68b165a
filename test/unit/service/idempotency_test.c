/* Keys over a scripted database: what is looked up, what is committed together, and who gets which response. */
#include "service/idempotency.h"

#include "metrics/metrics.h"
#include "service/db_double.c"

static const Field fields[] = {{.name = "n", .type = F_INT}, {0}};
static const Route keyed = {.method = "POST", .path = "/t/t", .body = fields, .flags = ROUTE_KEYED};
static const Route plain = {.method = "POST", .path = "/t/t"};
static const ServiceDef def = {.name = "t", .schema = "t"};
static const Sql act = {"ACT"}, show = {"SHOW $1"};

static struct {
  Service service;
  Arena *arena;
  HttpRequest http;
  HttpReply reply;
  Req req;
} world;

/* key: of the header; NULL: none. */
static void begin(const char *key) {
  if (world.arena)
    arena_free(world.arena);
  else {
    metrics_init(1);
    world.service = (Service){.def = &def};
    idempotency_prepare(&world.service);
    metrics_worker(0);
  }
  db_reset();
  world.arena = arena_new();
  world.http = (HttpRequest){.arena = world.arena,
                             .method = STR("POST"),
                             .path = STR("/t/t/5"),
                             .query = STR("q=1"),
                             .body = STR("{\"n\":1}"),
                             .headers = {{STR("idempotency-key"), str_from(key)}},
                             .header_count = key ? 1 : 0,
                             .deadline_us = 77};
  world.reply = (HttpReply){0};
  world.req = (Req){
      .http = &world.http, .arena = world.arena, .service = &world.service, .reply = &world.reply, .route = &keyed};
}

/* Whether a call sent this, among other text. */
static bool db_has_sent(int call, const char *text) {
  return strstr(db_double.sent[call], text) != NULL;
}

/* The key is known: same ("t" or "f"), status and body as they are stored. */
static DbScript found(const char *same, const char *status, const char *body) {
  return (DbScript){.rows = 1, .columns = 3, .cells = {same, status, body}};
}

TEST(without_a_key_nothing_is_looked_up) {
  begin(NULL);
  CHECK_INT(idempotency_begin(&world.req), 0);
  begin("k");
  world.req.route = &plain;
  CHECK_INT(idempotency_begin(&world.req), 0);
  CHECK(!world.req.key.p);
  CHECK_INT(db_double.calls, 0);
}

TEST(a_new_key_is_looked_up_and_kept_in_mind) {
  begin("k");
  CHECK_INT(idempotency_begin(&world.req), 0);
  CHECK_STR(world.req.key, "k");
  CHECK(db_has_sent(0, "FROM t.idempotency WHERE key = $1|k|POST /t/t/5 {\"n\":1}\n"));
  CHECK_INT(db_double.deadline_us, 77);
}

static void check_fingerprint(const char *text) {
  CHECK_INT(idempotency_begin(&world.req), 0);
  CHECK(db_has_sent(0, text));
}

/* What stands in databases already: another format would turn every retry across an upgrade into a 422. */
TEST(the_fingerprint_is_of_method_path_and_body) {
  begin("k");
  world.http.method = STR("PUT");
  check_fingerprint("|k|PUT /t/t/5 {\"n\":1}\n");
  begin("k");
  world.http.path = STR("/t/t/6");
  check_fingerprint("|k|POST /t/t/6 {\"n\":1}\n");
  begin("k");
  world.http.body = STR("{\"n\":2}");
  check_fingerprint("|k|POST /t/t/5 {\"n\":2}\n");
  begin("k");
  world.http.body = (Str){0};
  check_fingerprint("|k|POST /t/t/5 \n");
  begin("k");
  world.http.query = STR("q=2");
  check_fingerprint("|k|POST /t/t/5 {\"n\":1}\n");
}

TEST(a_body_counts_where_the_route_reads_none) {
  static const Route bodyless = {.method = "PUT", .path = "/t/t/{id}", .flags = ROUTE_KEYED};
  begin("k");
  world.req.route = &bodyless;
  check_fingerprint("|k|POST /t/t/5 {\"n\":1}\n");
}

TEST(the_first_response_is_replayed) {
  begin("k");
  db_double.script[0] = found("t", "200", "{\"id\":1}");
  CHECK_INT(idempotency_begin(&world.req), 1);
  CHECK_INT(world.reply.status, 200);
  CHECK_STR(world.reply.body, "{\"id\":1}");
  CHECK_INT(world.reply.header_count, 1);
  CHECK_STR(world.reply.headers[0].name, "idempotent-replayed");
  CHECK_STR(world.reply.headers[0].value, "true");
  CHECK(!world.reply.content_type);
}

TEST(a_problem_is_replayed_as_one) {
  begin("k");
  db_double.script[0] = found("t", "424", "{}");
  CHECK_INT(idempotency_begin(&world.req), 1);
  CHECK_INT(world.reply.status, 424);
  CHECK_STR(world.reply.content_type, "application/problem+json");
}

TEST(another_request_under_the_key_is_refused) {
  begin("k");
  db_double.script[0] = found("f", "200", "{}");
  CHECK_INT(idempotency_begin(&world.req), E_KEY_REUSED);
  CHECK_INT(world.reply.status, 0);
  begin("k");
  db_double.script[0] = found("f", "0", NULL); /* also while the first still runs */
  CHECK_INT(idempotency_begin(&world.req), E_KEY_REUSED);
}

TEST(a_key_whose_request_still_runs_is_in_progress) {
  begin("k");
  db_double.script[0] = found("t", "0", NULL);
  CHECK_INT(idempotency_begin(&world.req), E_IN_PROGRESS);
  CHECK_INT(world.reply.status, 0);
}

TEST(a_look_up_that_fails_lets_nothing_through) {
  begin("k");
  db_double.script[0].rc = E_UNAVAILABLE;
  CHECK_INT(idempotency_begin(&world.req), E_UNAVAILABLE);
}

TEST(keys_are_quoted_or_bare) {
  begin("\"k\"");
  CHECK_INT(idempotency_begin(&world.req), 0);
  CHECK_STR(world.req.key, "k");
  static const char *const bad[] = {"", "\"\"", "a b", "\xd0\xb6", "a\tb", "\x7f"};
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    begin(bad[i]);
    CHECK_INT(idempotency_begin(&world.req), E_MALFORMED);
    CHECK(world.req.detail.p && db_double.calls == 0);
  }
  char text[257];
  memset(text, 'x', 256);
  text[255] = text[256] = '\0';
  begin(text);
  CHECK_INT(idempotency_begin(&world.req), 0);
  text[255] = 'x';
  begin(text);
  CHECK_INT(idempotency_begin(&world.req), E_MALFORMED);
}

static int commit(DbResult *results) {
  world.req.key = STR("k");
  reply_json(&world.req, 200, STR("{\"ok\":1}"));
  return idempotency_commit(&world.req, &DB_STMT(&act, V_INT(1)), 1, results);
}

TEST(the_key_is_committed_in_one_group_with_the_act) {
  DbResult result;
  begin("k");
  db_double.script[0] = (DbScript){.statement = 1, .affected = 7};
  CHECK_INT(commit(&result), 0);
  CHECK_INT(db_double.calls, 1);
  CHECK_INT(db_double.counts[0], 2);
  CHECK(str_starts(str_from(db_double.sent[0]), STR("INSERT INTO t.idempotency")));
  CHECK(db_has_sent(0, "|k|POST /t/t/5 {\"n\":1}|200|{\"ok\":1}\nACT|1\n"));
  CHECK_INT(result.affected, 7); /* the act's, not the key's */
}

TEST(without_a_key_only_the_act_is_committed) {
  begin(NULL);
  reply_json(&world.req, 200, STR("{}"));
  CHECK_INT(idempotency_commit(&world.req, &DB_STMT(&act, V_INT(1)), 1, NULL), 0);
  CHECK_STR(db_double.sent[0], "ACT|1\n");
}

TEST(who_loses_the_race_gets_the_winners_response) {
  begin("k");
  db_double.script[0].rc = E_EXISTS;
  db_double.script[1] = found("t", "200", "{\"ok\":\"first\"}");
  CHECK_INT(commit(NULL), 1);
  CHECK_INT(db_double.calls, 2);
  CHECK_STR(world.reply.body, "{\"ok\":\"first\"}");
}

TEST(a_race_against_another_request_is_refused) {
  begin("k");
  db_double.script[0].rc = E_EXISTS;
  db_double.script[1] = found("f", "200", "{}");
  CHECK_INT(commit(NULL), E_KEY_REUSED);
}

TEST(an_existing_row_that_is_not_the_key_is_a_conflict) {
  begin("k");
  db_double.script[0].rc = E_EXISTS;
  CHECK_INT(commit(NULL), E_CONFLICT);
  begin(NULL);
  CHECK_INT(idempotency_lost_race(&world.req), E_CONFLICT);
  CHECK_INT(db_double.calls, 0);
}

TEST(an_unknown_outcome_stays_unknown) {
  begin("k");
  db_double.script[0].rc = E_UNKNOWN;
  CHECK_INT(commit(NULL), E_UNKNOWN);
  CHECK_INT(db_double.calls, 1); /* nothing is sent a second time */
}

static int commit_response(bool with_key, DbResult *result) {
  world.req.key = with_key ? STR("k") : (Str){0};
  return idempotency_commit_response(&world.req, &DB_STMT(&act, V_INT(1)), 1, DB_STMT(&show, V_INT(2)), result);
}

TEST(a_response_that_the_database_gives_is_kept_and_sent) {
  DbResult result;
  begin("k");
  db_double.script[0] = (DbScript){.statement = 2, .rows = 1, .columns = 1, .cells = {"{\"n\":5}"}};
  CHECK_INT(commit_response(true, &result), 0);
  CHECK_INT(db_double.counts[0], 3);
  CHECK(db_has_sent(0, "|k|POST /t/t/5 {\"n\":1}|0|\nACT|1\nWITH answer (body) AS (SHOW $1) UPDATE t.idempotency"));
  CHECK(db_has_sent(0, "WHERE k.key = $2 RETURNING answer.body|2|k\n"));
  CHECK_INT(world.reply.status, 200);
  CHECK_STR(world.reply.body, "{\"n\":5}");
  CHECK_INT(result.affected, 1);
}

TEST(a_response_without_a_key_is_only_read) {
  DbResult result;
  begin(NULL);
  db_double.script[0] = (DbScript){.statement = 1, .rows = 1, .columns = 1, .cells = {"{}"}};
  CHECK_INT(commit_response(false, &result), 0);
  CHECK_STR(db_double.sent[0], "ACT|1\nSHOW $1|2\n");
  begin(NULL);
  CHECK_INT(commit_response(false, &result), E_INTERNAL); /* no row, no response */
}

TEST(ends_and_forgets_by_key) {
  begin("k");
  DbStmt finish = idempotency_finish(&world.service, world.arena, STR("k"), 424, STR("{}"));
  DbStmt forget = idempotency_forget(&world.service, world.arena, STR("k"));
  CHECK(strstr(finish.sql->text, "AND status = 0")); /* a response that is kept never changes */
  CHECK_INT(finish.values[1].integer, 424);
  CHECK_STR(forget.values[0].text, "k");
}
