/* A user opens a wallet, refills it, orders, orders more than is left, and reads the notifications. Each response is
 * checked against what the API promises. */
#include "commands/smoke.h"

#include "http/client.h"
#include "rt/clock.h"
#include "rt/fiber.h"
#include "rt/loop.h"
#include "json/json.h"

#include <stdio.h>

#define POLL_US (100 * MILLISECONDS)
#define CALL_US (20 * SECONDS) /* longer than the deadline of a request in the shop */
#define ORDER                                                                                                          \
  "{\"contents\":[{\"item\":\"smoke test\",\"amount\":1,\"price\":123.45}],\"timeDelivery\":\"2099-01-01T12:00:00\","  \
  "\"billingId\":\"%.*s\"}"
/* The wallet opened, refilled, and charged for two orders, of which it can pay one. */
#define OPERATIONS 4

static struct {
  const char *order, *user, *billing, *notification;
  int64_t timeout_us;
} conf;

#define URL(NAME, member, url)                                                                                         \
  {                                                                                                                    \
    .env = NAME "_URL", .type = OPTION_TEXT, .target = &conf.member, .def = url,                                       \
    .help = "its address; all may be the same"                                                                         \
  }

static const Option options[] = {
    URL("ORDER", order, "http://order:8080"),
    URL("USER", user, "http://user:8080"),
    URL("BILLING", billing, "http://billing:8080"),
    URL("NOTIFICATION", notification, "http://notification:8080"),
    {.env = "SMOKE_TIMEOUT",
     .type = OPTION_MILLIS,
     .target = &conf.timeout_us,
     .def = "60s",
     .min = 1000,
     .max = 600000,
     .help = "how long the notifications may take to arrive"},
    {0},
};

typedef struct Smoke {
  Arena *arena;
  int rc;
} Smoke;

typedef struct Call {
  const char *base, *method;
  Str path, body;
  int status; /* expected */
} Call;

static int wrong(const Call *call, const char *what, Str text) {
  printf("%s %.*s: %s %.*s\n", call->method, STR_FMT(call->path), what, STR_FMT(text));
  return E_CONFLICT;
}

static int call_service(Smoke *s, const Call *call, const JsonValue **ret) {
  HttpRequest request = {.arena = s->arena,
                         .method = str_from(call->method),
                         .path = call->path,
                         .body = call->body,
                         .headers = {{STR("content-type"), STR("application/json")}},
                         .header_count = call->body.p ? 1 : 0,
                         .deadline_us = clock_now_us() + CALL_US};
  HttpReply reply = {0};
  int rc = http_client_call(call->base, &request, &reply);
  if (rc < 0)
    return wrong(call, call->base, str_from(err_info(rc)->title));
  if (reply.status != call->status)
    return wrong(call, "returned", arena_printf(s->arena, "%d: %.*s", reply.status, STR_FMT(reply.body)));
  JsonValue *value = NULL;
  if (json_parse(s->arena, reply.body, &value, NULL) < 0)
    return wrong(call, "returned no JSON:", reply.body);
  *ret = value;
  return 0;
}

static Str text_of(const JsonValue *object, Str name) {
  const JsonValue *member = json_get(object, name);
  return member ? member->text : (Str){0};
}

static int expect(const Call *call, const char *what, Str is, Str must) {
  if (str_eq(is, must))
    return 0;
  printf("%s is %.*s, expected %.*s: ", what, STR_FMT(is), STR_FMT(must));
  return wrong(call, "returned it", (Str){0});
}

static int open_wallet(Smoke *s, Str *user, Str *wallet) {
  const JsonValue *response;
  Call open = {.base = conf.user,
               .method = "POST",
               .path = STR("/user/user"),
               .body = STR("{\"name\":\"Smoke test\",\"email\":\"smoke@example.org\"}"),
               .status = 200};
  TRY(call_service(s, &open, &response));
  *user = text_of(response, STR("id"));
  *wallet = text_of(response, STR("billingId"));
  Call fill = {.base = conf.billing,
               .method = "PUT",
               .path = arena_printf(s->arena, "/billing/billing/refill/%.*s/200", STR_FMT(*wallet)),
               .status = 200};
  TRY(call_service(s, &fill, &response));
  printf("user %.*s has a wallet with 200\n", STR_FMT(*user));
  return 0;
}

static int order(Smoke *s, Str wallet) {
  const JsonValue *response;
  Call good = {.base = conf.order,
               .method = "POST",
               .path = STR("/order/order/saga"),
               .body = arena_printf(s->arena, ORDER, STR_FMT(wallet)),
               .status = 200};
  TRY(call_service(s, &good, &response));
  TRY(expect(&good, "the order", text_of(response->first, STR("status")), STR("SUCCESS")));
  printf("order %.*s is paid, reserved and scheduled\n", STR_FMT(text_of(response->first, STR("id"))));
  return 0;
}

static int order_beyond_means(Smoke *s, Str wallet) {
  const JsonValue *response;
  Call bad = {.base = conf.order,
              .method = "POST",
              .path = STR("/order/order/saga"),
              .body = arena_printf(s->arena, ORDER, STR_FMT(wallet)),
              .status = 424};
  TRY(call_service(s, &bad, &response));
  Str id = text_of(response, STR("orderId"));
  Call look = {.base = conf.order,
               .method = "GET",
               .path = arena_printf(s->arena, "/order/order/%.*s", STR_FMT(id)),
               .status = 200};
  TRY(call_service(s, &look, &response));
  TRY(expect(&look, "the order", text_of(response, STR("status")), STR("CANCELED")));
  printf("order %.*s costs more than the wallet holds and is rolled back\n", STR_FMT(id));
  Call rest = {.base = conf.billing,
               .method = "GET",
               .path = arena_printf(s->arena, "/billing/billing/%.*s", STR_FMT(wallet)),
               .status = 200};
  TRY(call_service(s, &rest, &response));
  return expect(&rest, "the wallet", text_of(response, STR("wallet")), STR("76.55"));
}

static int count(const JsonValue *list) {
  int n = 0;
  for (const JsonValue *one = list->first; one; one = one->next)
    n++;
  return n;
}

static int await_notifications(Smoke *s, Str user) {
  Call call = {.base = conf.notification,
               .method = "GET",
               .path = arena_printf(s->arena, "/notification/notification/%.*s", STR_FMT(user)),
               .status = 200};
  int64_t deadline_us = clock_now_us() + conf.timeout_us;
  const JsonValue *list;
  TRY(call_service(s, &call, &list));
  while (count(list) < OPERATIONS) {
    if (clock_now_us() >= deadline_us)
      return wrong(&call, "has too few at the deadline:", arena_printf(s->arena, "%d", count(list)));
    TRY(fiber_sleep(POLL_US));
    TRY(call_service(s, &call, &list));
  }
  if (count(list) > OPERATIONS)
    return wrong(&call, "has more than there were operations:", arena_printf(s->arena, "%d", count(list)));
  for (const JsonValue *one = list->first; one; one = one->next)
    printf("  %.*s\n", STR_FMT(text_of(one, STR("message"))));
  return 0;
}

static int visit(Smoke *s) {
  Str user, wallet;
  TRY(open_wallet(s, &user, &wallet));
  TRY(order(s, wallet));
  TRY(order_beyond_means(s, wallet));
  return await_notifications(s, user);
}

static void start(void *arg) {
  Smoke *s = arg;
  s->rc = visit(s);
  loop_stop();
}

static int run(int argc, char **argv) {
  (void)argc;
  (void)argv;
  SCOPED_ARENA arena = arena_new();
  Smoke smoke = {.arena = arena, .rc = E_INTERNAL};
  setvbuf(stdout, NULL, _IOLBF, 0);
  loop_init();
  loop_on_terminate(loop_stop);
  if (fiber_start("smoke", start, &smoke))
    loop_run();
  printf("smoke: %s\n", smoke.rc < 0 ? "failed" : "passed");
  return smoke.rc < 0 ? 1 : 0;
}

static const Option *const tables[] = {options, NULL};

const Command smoke_command = {.name = "smoke",
                               .arguments = "",
                               .help = "runs a smoke test against a running shop: one order that succeeds, one that is "
                                       "rolled back, their notifications",
                               .run = run,
                               .tables = tables};
