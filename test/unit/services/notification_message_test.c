/* Which rows of Billing's history become an operation, and what its user reads of it. */
#include "services/notification_message.h"

#include "unit/unit.h"

#include <string.h>

#define ROW_ID  "6f1c0e1e-2f2b-4b1e-9a53-0d9f0f6c9a11"
#define ACCOUNT "0b0a4f6e-6f0e-4b0e-8a55-1f0f2f6c9a22"
#define ROW(type, status, sum, last, current)                                                                          \
  "{\"id\":\"" ROW_ID "\",\"billing_id\":\"" ACCOUNT "\",\"sum\":" sum ",\"last_value_wallet\":" last                  \
  ",\"current_value_wallet\":" current ",\"type_operation\":\"" type "\",\"status\":\"" status "\"}"

static Arena *arena;

static const char *read_row(const char *json, Operation *ret) {
  if (arena)
    arena_free(arena);
  arena = arena_new();
  JsonValue *row = NULL;
  CHECK_INT(json_parse(arena, str_from(json), &row, NULL), 0);
  return notification_operation_read(arena, row, ret);
}

static Str message(const char *json) {
  Operation o = {0};
  const char *problem = read_row(json, &o);
  CHECK(problem == NULL);
  return problem ? str_from(problem) : notification_message(arena, &o);
}

TEST(each_operation_has_its_text) {
  static const struct {
    const char *row, *text;
  } rows[] = {
      {ROW("CREATE", "SUCCESS", "0", "0", "5"), "Your account was opened; its wallet holds 5.00."},
      {ROW("CREATE", "FAILED", "0", "null", "null"), "Your account could not be opened."},
      {ROW("REFILL", "SUCCESS", "10.5", "0", "10.5"), "Your wallet was refilled with 10.50 and now holds 10.50."},
      {ROW("REFILL", "FAILED", "10", "1", "1"), "The refill of your wallet with 10.00 failed; it holds 1.00."},
      {ROW("BUY", "SUCCESS", "123.45", "1000", "876.55"), "You paid 123.45 from your wallet, which now holds 876.55."},
      {ROW("BUY", "FAILED", "5", "0.1", "0.1"), "Your payment of 5.00 was refused: your wallet holds 0.10."},
      {ROW("REFUND", "SUCCESS", "5", "0", "5"), "You were refunded 5.00; your wallet now holds 5.00."},
      {ROW("REFUND", "FAILED", "5", "0", "0"), "The refund of 5.00 failed; your wallet holds 0.00."},
      {ROW("GIFT", "SUCCESS", "5", "0", "5"), "GIFT of 5.00: SUCCESS. Your wallet holds 5.00."},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
    CHECK_STR(message(rows[i].row), rows[i].text);
}

TEST(amounts_come_as_numbers_as_text_or_not_at_all) {
  CHECK_STR(message(ROW("REFILL", "SUCCESS", "\"7.1\"", "0", "\"7.10\"")),
            "Your wallet was refilled with 7.10 and now holds 7.10.");
  CHECK_STR(message(ROW("BUY", "FAILED", "null", "3", "null")),
            "Your payment of an unknown amount was refused: your wallet holds 3.00.");
  CHECK_STR(message(ROW("BUY", "FAILED", "null", "null", "null")),
            "Your payment of an unknown amount was refused: your wallet holds an unknown amount.");
  /* Beyond what money can be: the digits as they came. */
  CHECK_STR(message(ROW("REFILL", "SUCCESS", "100000000000000000000.25", "0", "1.123")),
            "Your wallet was refilled with 100000000000000000000.25 and now holds 1.123.");
}

TEST(the_wallet_is_the_one_after_the_operation) {
  Operation o = {0};
  CHECK(read_row(ROW("BUY", "SUCCESS", "1", "10", "9"), &o) == NULL);
  CHECK_STR(o.wallet, "9.00");
  CHECK_STR(o.type, "BUY");
  CHECK_STR(o.status, "SUCCESS");
  char id[UUID_TEXT];
  uuid_format(o.id, id);
  CHECK_STR(id, ROW_ID);
  uuid_format(o.billing_id, id);
  CHECK_STR(id, ACCOUNT);
}

TEST(a_row_that_can_never_be_a_notification_says_why) {
  static const struct {
    const char *row, *problem;
  } rows[] = {
      {"{}", "id is missing or no UUID"},
      {"{\"id\":\"" ROW_ID "x\"}", "id is missing or no UUID"},
      {"{\"id\":\"00000000-0000-0000-0000-000000000000\"}", "id is missing or no UUID"},
      {"{\"id\":\"" ROW_ID "\",\"billing_id\":7}", "billing_id is no UUID"},
      {"{\"id\":\"" ROW_ID "\"}", "type_operation is missing or no text"},
      {"{\"id\":\"" ROW_ID "\",\"type_operation\":\"BUY\"}", "status is missing or no text"},
      {ROW("BUY", "SUCCESS", "\"much\"", "0", "0"), "an amount is no number"},
      {ROW("BUY", "SUCCESS", "1", "[]", "0"), "an amount is no number"},
      {ROW("BUY", "SUCCESS", "1", "0", "{}"), "an amount is no number"},
  };
  for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
    Operation o = {.type = STR("as before")};
    const char *problem = read_row(rows[i].row, &o);
    CHECK(problem != NULL);
    CHECK_STR(problem, rows[i].problem);
    CHECK_STR(o.type, "as before");
  }
  Operation o;
  CHECK_STR(notification_operation_read(arena, NULL, &o), "the event has no row");
}

TEST(an_account_may_be_missing) {
  Operation o = {0};
  CHECK(read_row("{\"id\":\"" ROW_ID "\",\"billing_id\":null,\"type_operation\":\"BUY\",\"status\":\"SUCCESS\"}", &o) ==
        NULL);
  CHECK(uuid_is_nil(o.billing_id));
}
