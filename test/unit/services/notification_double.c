/* What notification's modules reach out to, as a test scripts it: the database (db_group, db_exec) and the user service
 * (service_call). Each is a double at that seam; the real ones are met in the system tests. Included by those tests,
 * whose own it is. */
#include "service/def.h"

#include <string.h>

enum { DOUBLE_GROUPS = 32 };

typedef struct DoubleUser {
  char account[UUID_TEXT]; /* the user's id is the account's with a leading 'a' */
  int status;              /* of the response */
} DoubleUser;

static struct {
  /* The user service. */
  DoubleUser users[64]; /* those not in here are 404 */
  int user_count, calls, running, running_max;
  bool hold; /* no response before it is cleared */
  /* The database. */
  int outcomes[DOUBLE_GROUPS]; /* of the groups, in order; then 0 */
  int under_way;               /* groups and calls */
  bool hold_groups;            /* groups wait until they are canceled */
  Service *service;            /* of this test: the resolvers of earlier ones live on, and do not count */
  int groups;
  char sent[DOUBLE_GROUPS][2][4096]; /* first value of each statement as text */
  int statements[DOUBLE_GROUPS];
  const char *first_sql[DOUBLE_GROUPS];
  void (*answer)(int group, Arena *arena, DbResult *results);
} world;

int service_call(const char *service, HttpRequest *request, HttpReply *reply);
int service_call(const char *service, HttpRequest *request, HttpReply *reply) {
  CHECK_STR(service, "user");
  static const Str prefix = STR("/user/user/billing_id/");
  CHECK(str_starts(request->path, prefix));
  Str account = {request->path.p + prefix.n, request->path.n - prefix.n};
  world.calls++;
  world.running++;
  world.running_max = world.running > world.running_max ? world.running : world.running_max;
  fiber_yield();
  while (world.hold)
    if (fiber_sleep(1 * MILLISECONDS) == E_CANCELED)
      break;
  world.running--;
  *reply = (HttpReply){.status = 404};
  for (int i = 0; i < world.user_count; i++)
    if (str_eq(account, str_from(world.users[i].account)))
      *reply = (HttpReply){.status = world.users[i].status,
                           .body = arena_printf(request->arena, "{\"id\":\"a%.*s\",\"email\":\"of %.*s\"}",
                                                (int)account.n - 1, account.p + 1, STR_FMT(account))};
  return 0;
}

static void record(int group, const DbStmt *statements, int count) {
  world.statements[group] = count;
  world.first_sql[group] = statements[0].sql->text;
  for (int i = 0; i < count && i < 2; i++)
    if (statements[i].count > 0)
      snprintf(world.sent[group][i], sizeof(world.sent[group][i]), "%.*s", STR_FMT(statements[i].values[0].text));
}

static int take_group(Db *db, Arena *arena, const DbStmt *statements, int count, DbResult *results,
                      int64_t deadline_us) {
  if (db != world.service->db)
    return E_UNAVAILABLE;
  CHECK(deadline_us > clock_now_us());
  int group = world.groups++ % DOUBLE_GROUPS;
  record(group, statements, count);
  if (world.hold_groups && !strncmp(statements[0].sql->text, "INSERT", 6))
    TRY(fiber_wait("held", deadline_us));
  fiber_yield();
  if (world.outcomes[group] < 0)
    return world.outcomes[group];
  if (results)
    memset(results, 0, sizeof(*results) * (size_t)count);
  if (world.answer && results)
    world.answer(group, arena, results);
  return 0;
}

int db_group(Db *db, Arena *arena, const DbStmt *statements, int count, DbResult *results, int64_t deadline_us) {
  world.under_way++;
  int rc = take_group(db, arena, statements, count, results, deadline_us);
  world.under_way--;
  return rc;
}

int db_exec(Db *db, Arena *arena, DbStmt statement, DbResult *result, int64_t deadline_us) {
  DbResult own;
  return db_group(db, arena, &statement, 1, result ? result : &own, deadline_us);
}

static void add_user(const char *account, int status) {
  DoubleUser *u = &world.users[world.user_count++];
  snprintf(u->account, sizeof(u->account), "%s", account);
  u->status = status;
}

static FiberFn *body;

/* What a resolver has in hand when a test ends would be a leak. */
static void run_to_the_end(void *arg) {
  body(arg);
  while (world.under_way > 0 || world.running > 0)
    fiber_yield();
  loop_stop();
}

/* Runs fn in a fiber of the loop until it returns. */
static void in_loop(FiberFn *fn) {
  static bool begun;
  if (!begun) {
    loop_init();
    metrics_init(1);
    notification_recipients_prepare();
  }
  begun = true;
  static Service services[32];
  static int tests;
  memset(&world, 0, sizeof(world));
  services[tests].db = (Db *)&services[tests]; /* any address, known by it */
  world.service = &services[tests++];
  body = fn;
  loop_resume();
  CHECK(fiber_start("test", run_to_the_end, NULL) != NULL);
  loop_run();
}
