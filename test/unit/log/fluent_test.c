/* The forward protocol's bytes, written out by hand from the specifications of MessagePack and of the protocol. */
#include "log/fluent.h"

#include "unit/unit.h"

TEST(an_entry) {
  SCOPED_ARENA arena = arena_new();
  Buf out = {.arena = arena};
  FiberContext context = {0};
  LogRecord record = {.time = {.tv_sec = 0x01020304, .tv_nsec = 0x0a0b0c0d},
                      .level = LOG_WARN,
                      .logger = "saga",
                      .thread = "main",
                      .context = &context};
  fluent_entry(&out, &record, STR("{\"a\":1}"));
  CHECK_STR(buf_view(&out), STR("\x92"
                                "\xd7\x00\x01\x02\x03\x04\x0a\x0b\x0c\x0d"
                                "\x84\xa7message\xa7{\"a\":1}\xa6logger\xa4saga\xa6thread\xa4main\xa5level\xa4WARN"));
}

TEST(around_the_entries_of_a_chunk) {
  SCOPED_ARENA arena = arena_new();
  Buf out = {.arena = arena};
  fluent_head(&out, STR("app.logs.normal"), 0x1234);
  CHECK_STR(buf_view(&out), STR("\x93\xaf"
                                "app.logs.normal\xc5\x12\x34"));
  buf_clear(&out);
  fluent_tail(&out, 300, STR("id-1"));
  CHECK_STR(buf_view(&out), STR("\x82\xa4size\xcd\x01\x2c\xa5"
                                "chunk\xa4id-1"));
}

TEST(an_acknowledgement_comes_in_pieces) {
  const Str whole = STR("\x81\xa3"
                        "ack\xa4id-1");
  for (size_t n = 1; n < whole.n; n++)
    CHECK_INT(fluent_ack((Str){whole.p, n}, STR("id-1")), 0);
  CHECK_INT(fluent_ack(whole, STR("id-1")), 1);
  CHECK_INT(fluent_ack(STR("\x82\xa1x\x01\xa3"
                           "ack\xa4id-1"),
                       STR("id-1")),
            1);
}

TEST(what_is_no_acknowledgement) {
  CHECK_INT(fluent_ack(STR("\x81\xa3"
                           "ack\xa4id-2"),
                       STR("id-1")),
            E_MALFORMED);
  CHECK_INT(fluent_ack(STR("\x81\xa3"
                           "nak\xa4id-1"),
                       STR("id-1")),
            E_MALFORMED);
  CHECK_INT(fluent_ack(STR("\x81\xa3"
                           "ack\x07"),
                       STR("id-1")),
            E_MALFORMED);
  CHECK_INT(fluent_ack(STR("HTTP/1.1 400 Bad Request\r\n"), STR("id-1")), E_MALFORMED);
  CHECK_INT(fluent_ack(STR("\xc1"), STR("id-1")), E_MALFORMED);
}
