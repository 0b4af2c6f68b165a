/* Connection strings: what is read from them and from the environment, and that no refusal shows a part of one. */
#include "db/dsn.h"

#include "resolver.h"
#include "unit/unit.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECRET "TopSecret"

static Str refusal(Arena *arena, const char *text) {
  Dsn dsn = {.database = "untouched"};
  Str why = {0};
  CHECK_INT(dsn_read(text, arena, &dsn, &why), E_FIELD);
  CHECK_STR(dsn.database, "untouched");
  return why;
}

static Dsn accepted(Arena *arena, const char *text) {
  Dsn dsn = {0};
  Str why = {0};
  CHECK_INT(dsn_read(text, arena, &dsn, &why), E_OK);
  CHECK_STR(why, (Str){0});
  return dsn;
}

static bool contains(Str text, const char *part) {
  return memmem(text.p, text.n, part, strlen(part)) != NULL;
}

TEST(no_refusal_shows_a_part_of_the_string) {
  static const char *const strings[] = {
      "postgresql://skald:w0rd%zz" SECRET "@127.0.0.1:1/skald",
      "postgresql://skald:w0rd%" SECRET "@127.0.0.1:1/skald",
      "postgresql://skald:" SECRET "%0@127.0.0.1:1/skald",
      "postgresql://skald:" SECRET "%00@127.0.0.1:1/skald",
      "postgresql://skald:" SECRET "@more@127.0.0.1:1/skald",
      "postgresql://skald:more@" SECRET "@127.0.0.1:1/skald",
      "postgresql://skald:more/" SECRET "@127.0.0.1:1/skald",
      "postgresql://skald:" SECRET "/more@127.0.0.1:1/skald",
      "postgresql://skald:1/" SECRET "@127.0.0.1:1/skald",
      "postgresql://skald:1/more?" SECRET "@127.0.0.1:1/skald",
      "postgresql://skald:1/more?" SECRET "=x@127.0.0.1:1/skald",
      "postgresql://skald:" SECRET "/skald",
      "postgresql://skald:more@[" SECRET "/skald",
      "postgresql://skald:more@[::1]" SECRET "/skald",
      "postgresql://skald:more@127.0.0.1:" SECRET "/skald",
      "postgresql://skald:more@127.0.0.1/skald?password=" SECRET "&" SECRET,
      "postgresql://skald:more@127.0.0.1/skald?" SECRET "=1",
      "postgres//skald:" SECRET "@127.0.0.1/skald",
      "postgressql://skald:" SECRET "@127.0.0.1/skald",
      "mysql://skald:" SECRET "@127.0.0.1/skald",
      "mysql://skald:" SECRET "@127.0.0.1/skald?a=b",
      "skald:" SECRET "@127.0.0.1/skald",
      "host=127.0.0.1 password=my " SECRET,
      "host=127.0.0.1 password=my " SECRET " user=skald",
      "host=127.0.0.1 password=my " SECRET "=x",
      "host=127.0.0.1 password=my\"" SECRET " x",
      "host=127.0.0.1 password='it's " SECRET "'",
      "host=127.0.0.1 password='" SECRET,
      "host=127.0.0.1 password=my \"=\" " SECRET,
      "host=127.0.0.1 port=" SECRET,
      "host=127.0.0.1 port=1," SECRET,
      "host=127.0.0.1,b hostaddr=" SECRET,
      "host=more@" SECRET,
      "dbname=postgresql://skald:" SECRET "@127.0.0.1/skald",
      "service=" SECRET,
  };
  SCOPED_ARENA arena = arena_new();
  for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
    Str why = refusal(arena, strings[i]);
    CHECK(str_starts(why, STR("the connection string cannot be used: ")));
    if (!CHECK(!contains(why, SECRET) && !contains(why, "more")))
      CHECK_STR(why, strings[i]);
  }
}

TEST(refusal_says_what_is_wrong) {
  SCOPED_ARENA arena = arena_new();
  CHECK(contains(refusal(arena, "postgresql://u:a%zz@h/d"), "invalid percent-encoded token"));
  CHECK(contains(refusal(arena, "host=a password=b c"), "missing \"=\" after"));
  CHECK(contains(refusal(arena, "host=a hots=b"), "invalid connection option"));
  CHECK(contains(refusal(arena, "host=a,b port=1,2,3"), "not as many ports as hosts"));
  CHECK(contains(refusal(arena, "host=a port=0"), "a port is not a number"));
  CHECK(contains(refusal(arena, "postgres:/u@h/d"), "no URL postgresql://"));
}

TEST(passwords_that_are_written_well_are_accepted) {
  static const char *const strings[] = {
      "postgresql://u:a%40b%2Fc%25@127.0.0.1:1/d",
      "postgresql://u:a:b?c#d&e=f@127.0.0.1:1/d",
      "postgres://u:p@127.0.0.1:1/d?application_name=a@b",
      "host=127.0.0.1 port=1 dbname=d password='a b\\'c@/%'",
      "host=127.0.0.1 port=1 dbname=d password=a@b/c%zz",
      "postgresql://u@127.0.0.1:1/d",
      "postgresql:///d?host=127.0.0.1&port=1",
  };
  SCOPED_ARENA arena = arena_new();
  for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
    Dsn dsn = accepted(arena, strings[i]);
    CHECK_STR(dsn.database, "d");
    CHECK_INT(dsn.hosts.count, 1);
    CHECK_STR(dsn.hosts.at[0].name, "127.0.0.1");
    CHECK_STR(dsn.hosts.at[0].port, "1");
  }
}

TEST(several_hosts_are_read_from_either_form) {
  static const char *const strings[] = {
      "host=two.test,127.0.0.1,/run port=1,2,3 target_session_attrs=read-write connect_timeout=3",
      "postgresql://u:p@two.test:1,127.0.0.1:2,%2Frun:3/d?target_session_attrs=read-write&connect_timeout=3",
  };
  SCOPED_ARENA arena = arena_new();
  for (int i = 0; i < 2; i++) {
    Dsn dsn = accepted(arena, strings[i]);
    CHECK_INT(dsn.hosts.count, 3);
    CHECK_STR(dsn.hosts.at[0].name, "two.test");
    CHECK_STR(dsn.hosts.at[1].name, "127.0.0.1");
    CHECK_STR(dsn.hosts.at[2].name, "/run");
    CHECK_STR(dsn.hosts.at[2].port, "3");
    CHECK(dsn.has_timeout);
  }
  CHECK_INT(resolver.in_loop, 0);
}

TEST(name_of_a_database_is_a_connection_string) {
  SCOPED_ARENA arena = arena_new();
  CHECK_STR(accepted(arena, "skald").database, "skald");
  CHECK(!accepted(arena, "skald").has_timeout);
}

TEST(environment_gives_what_the_string_does_not) {
  SCOPED_ARENA arena = arena_new();
  setenv("PGHOST", "two.test,other.test", 1);
  setenv("PGPORT", "1,2", 1);
  Dsn dsn = accepted(arena, "postgresql:///d");
  CHECK_INT(dsn.hosts.count, 2);
  CHECK_STR(dsn.hosts.at[1].name, "other.test");
  CHECK_STR(dsn.hosts.at[1].port, "2");
  CHECK_STR(accepted(arena, "host=mine.test port=3").hosts.at[0].name, "mine.test");
  unsetenv("PGHOST");
  unsetenv("PGPORT");
  CHECK_INT(resolver.in_loop, 0);
}

TEST(service_file_gives_what_the_string_does_not) {
  SCOPED_ARENA arena = arena_new();
  char path[] = "/tmp/skald-service-XXXXXX";
  int fd = mkstemp(path);
  static const char text[] = "[shop]\nhost=two.test\nport=7\n";
  CHECK_INT(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
  close(fd);
  setenv("PGSERVICEFILE", path, 1);
  Dsn dsn = accepted(arena, "service=shop dbname=d");
  CHECK_STR(dsn.hosts.at[0].name, "two.test");
  CHECK_STR(dsn.hosts.at[0].port, "7");
  unsetenv("PGSERVICEFILE");
  unlink(path);
  CHECK_INT(resolver.in_loop, 0);
}
