/* A user opens a wallet, fills it, orders, orders more than is left, and reads what was notified. Each answer is held
 * against what the API promises. */
#include "commands/smoke.h"

#include "http/client.h"
#include "rt/clock.h"
#include "rt/fiber.h"
#include "rt/loop.h"
#include "json/json.h"

#include <stdio.h>

#define POLL_US 100000
#define CALL_US 20000000 /* beyond the deadline that a request has in the shop */
#define ORDER                                                                                                          \
  "{\"contents\":[{\"item\":\"smoke test\",\"amount\":1,\"price\":123.45}],\"timeDelivery\":\"2099-01-01T12:00:00\","  \
  "\"billingId\":\"%.*s\"}"
/* The wallet opened, filled, and asked for the price of two orders, of which it can pay one. */
#define OPERATIONS 4

static struct {
  const char *order, *user, *billing, *notification;
  int64_t timeout_us;
} conf;

#define URL(NAME, member, url)                                                                                         \
  {                                                                                                                    \
    .env = NAME "_URL", .type = OPTION_TEXT, .target = &conf.member, .def = url,                                       \
    .help = "where it is; all may be the same address"                                                                 \
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
     .help = "how long the notifications may take"},
    {0},
};

typedef struct Smoke {
  Arena *arena;
  int rc;
} Smoke;

typedef struct Call {
  const char *base, *method;
  Str path, body;
  int status; /* that must come */
} Call;

static int wrong(const Call *call, const char *what, Str text) {
  printf("%s %.*s: %s %.*s\n", call->method, STR_FMT(call->path), what, STR_FMT(text));
  return E_CONFLICT;
}

static int ask(Smoke *s, const Call *call, const JsonValue **ret) {
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
    return wrong(call, "answers", arena_printf(s->arena, "%d: %.*s", reply.status, STR_FMT(reply.body)));
  JsonValue *value = NULL;
  if (json_parse(s->arena, reply.body, &value, NULL) < 0)
    return wrong(call, "answers no JSON:", reply.body);
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
  printf("%s is %.*s, must be %.*s: ", what, STR_FMT(is), STR_FMT(must));
  return wrong(call, "tells so", (Str){0});
}

static int open_wallet(Smoke *s, Str *user, Str *wallet) {
  const JsonValue *answer;
  Call open = {conf.user, "POST", STR("/user/user"), STR("{\"name\":\"Smoke test\",\"email\":\"smoke@example.org\"}"),
               200};
  TRY(ask(s, &open, &answer));
  *user = text_of(answer, STR("id"));
  *wallet = text_of(answer, STR("billingId"));
  Call fill = {
      conf.billing, "PUT", arena_printf(s->arena, "/billing/billing/refill/%.*s/200", STR_FMT(*wallet)), {0}, 200};
  TRY(ask(s, &fill, &answer));
  printf("user %.*s has a wallet with 200\n", STR_FMT(*user));
  return 0;
}

static int order(Smoke *s, Str wallet) {
  const JsonValue *answer;
  Call good = {conf.order, "POST", STR("/order/order/saga"), arena_printf(s->arena, ORDER, STR_FMT(wallet)), 200};
  TRY(ask(s, &good, &answer));
  TRY(expect(&good, "the order", text_of(answer->first, STR("status")), STR("SUCCESS")));
  printf("order %.*s is paid, reserved and scheduled\n", STR_FMT(text_of(answer->first, STR("id"))));
  return 0;
}

static int order_beyond_means(Smoke *s, Str wallet) {
  const JsonValue *answer;
  Call bad = {conf.order, "POST", STR("/order/order/saga"), arena_printf(s->arena, ORDER, STR_FMT(wallet)), 424};
  TRY(ask(s, &bad, &answer));
  Str id = text_of(answer, STR("orderId"));
  Call look = {conf.order, "GET", arena_printf(s->arena, "/order/order/%.*s", STR_FMT(id)), {0}, 200};
  TRY(ask(s, &look, &answer));
  TRY(expect(&look, "the order", text_of(answer, STR("status")), STR("CANCELED")));
  printf("order %.*s, beyond the wallet's means, is rolled back\n", STR_FMT(id));
  Call rest = {conf.billing, "GET", arena_printf(s->arena, "/billing/billing/%.*s", STR_FMT(wallet)), {0}, 200};
  TRY(ask(s, &rest, &answer));
  return expect(&rest, "the wallet", text_of(answer, STR("wallet")), STR("76.55"));
}

static int count(const JsonValue *list) {
  int n = 0;
  for (const JsonValue *one = list->first; one; one = one->next)
    n++;
  return n;
}

static int await_notifications(Smoke *s, Str user) {
  Call call = {
      conf.notification, "GET", arena_printf(s->arena, "/notification/notification/%.*s", STR_FMT(user)), {0}, 200};
  int64_t deadline_us = clock_now_us() + conf.timeout_us;
  const JsonValue *list;
  TRY(ask(s, &call, &list));
  while (count(list) < OPERATIONS) {
    if (clock_now_us() >= deadline_us)
      return wrong(&call, "has too few after all this time:", arena_printf(s->arena, "%d", count(list)));
    TRY(fiber_sleep(POLL_US));
    TRY(ask(s, &call, &list));
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
  printf("smoke: %s\n", smoke.rc < 0 ? "failed" : "all is well");
  return smoke.rc < 0 ? 1 : 0;
}

static const Option *const tables[] = {options, NULL};

const Command smoke_command = {.name = "smoke",
                               .arguments = "",
                               .help = "runs a smoke test against a running shop: one order that succeeds, one that is "
                                       "rolled back, their notifications",
                               .run = run,
                               .tables = tables};
