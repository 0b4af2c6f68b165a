/* Lists of hosts: how names, addresses and ports are paired, and what is refused. */
#include "db/hosts.h"

#include "base/buf.h"
#include "unit/unit.h"

#include <string.h>

/* The list as "name address port" entries, or the refusal. */
static Str split(Arena *arena, const char *names, const char *addresses, const char *ports) {
  HostList list = {.count = -1};
  const char *why = NULL;
  if (hosts_split(names, addresses, ports, arena, &list, &why) < 0) {
    CHECK_INT(list.count, -1);
    return arena_printf(arena, "! %s", why ? why : "without a reason");
  }
  Buf b = {.arena = arena};
  for (int i = 0; i < list.count; i++)
    buf_printf(&b, "%s[%s|%s|%s]%s", i ? " " : "", list.at[i].name, list.at[i].address, list.at[i].port,
               host_needs_lookup(&list.at[i]) ? "?" : "");
  return buf_view(&b);
}

#define PORTS   "! there are not as many ports as hosts"
#define COUNTS  "! there are not as many hosts as addresses (hostaddr)"
#define NUMBERS "! a port is not a number from 1 to 65535"
#define ODD     "! a host has a character that no host has"

TEST(lists_are_paired_as_libpq_pairs_them) {
  static const struct {
    const char *names, *addresses, *ports, *want;
  } cases[] = {
      {NULL, NULL, NULL, "[||]"},
      {"", "", "5432", "[||5432]"},
      {"a", NULL, "5432", "[a||5432]?"},
      {"a,b", NULL, "5432", "[a||5432]? [b||5432]?"},
      {"a,b", NULL, "1,2", "[a||1]? [b||2]?"},
      {"a,b,c", "", ",2,", "[a||]? [b||2]? [c||]?"},
      {"a", NULL, "1,2", PORTS},
      {"a,b,c", NULL, "1,2", PORTS},
      {"127.0.0.1", NULL, "1", "[127.0.0.1||1]"},
      {"::1", NULL, "1", "[::1||1]"},
      {"127.1", NULL, "1", "[127.1||1]?"},
      {"fe80::1%eth0", NULL, "1", "[fe80::1%eth0||1]?"},
      {"/run/postgresql", NULL, "1", "[/run/postgresql||1]"},
      {"/run/a@b c", NULL, "1", "[/run/a@b c||1]"},
      {"@abstract", NULL, "1", "[@abstract||1]"},
      {"/run/a,b,10.0.0.1,", NULL, "1", "[/run/a||1] [b||1]? [10.0.0.1||1] [||1]"},
      {"", "10.0.0.1", "1", "[|10.0.0.1|1]"},
      {"a", "10.0.0.1", "1", "[a|10.0.0.1|1]"},
      {"a,b", "10.0.0.1,", "1", "[a|10.0.0.1|1] [b||1]?"},
      {"", "10.0.0.1,::1", "1,2", "[|10.0.0.1|1] [|::1|2]"},
      {"a", "10.0.0.1,10.0.0.2", "1", COUNTS},
      {"a,b", "10.0.0.1", "1", COUNTS},
      {"a", NULL, "0", NUMBERS},
      {"a", NULL, "65535", "[a||65535]?"},
      {"a", NULL, "65536", NUMBERS},
      {"a", NULL, "-1", NUMBERS},
      {"a", NULL, "1x", NUMBERS},
      {"a", NULL, " 1 ", "[a|| 1 ]?"},
      {"a,b", NULL, "1,secret", NUMBERS},
      {"a@b", NULL, "1", ODD},
      {"a, b", NULL, "1", ODD},
      {"a,b\n", NULL, "1", ODD},
  };
  SCOPED_ARENA arena = arena_new();
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
    CHECK_STR(split(arena, cases[i].names, cases[i].addresses, cases[i].ports), cases[i].want);
}

TEST(too_many_hosts_are_refused) {
  SCOPED_ARENA arena = arena_new();
  Buf names = {.arena = arena};
  for (int i = 0; i < HOSTS_MAX; i++)
    buf_cstr(&names, i ? ",a" : "a");
  HostList list;
  const char *why = NULL;
  CHECK_INT(hosts_split(arena_cstr(arena, buf_view(&names)), NULL, "1", arena, &list, &why), E_OK);
  CHECK_INT(list.count, HOSTS_MAX);
  buf_cstr(&names, ",a");
  CHECK_STR(split(arena, arena_cstr(arena, buf_view(&names)), NULL, "1"), "! there are too many hosts");
}

TEST(joined_lists_have_equal_lengths) {
  SCOPED_ARENA arena = arena_new();
  HostList list = {0};
  const Host hosts[] = {{"a", "10.0.0.1", "1"}, {"a", "::1", "1"}, {"/run", "", ""}, {"", "", "2"}};
  for (int i = 0; i < 4; i++)
    hosts_add(&list, &hosts[i]);
  const char *names, *addresses, *ports;
  hosts_join(&list, arena, &names, &addresses, &ports);
  CHECK_STR(names, "a,a,/run,");
  CHECK_STR(addresses, "10.0.0.1,::1,,");
  CHECK_STR(ports, "1,1,,2");
}

TEST(full_list_takes_no_more) {
  HostList list = {0};
  for (int i = 0; i < HOSTS_MAX + 2; i++)
    hosts_add(&list, &(Host){"a", "", ""});
  CHECK_INT(list.count, HOSTS_MAX);
}

/* Whatever stands in the three lists: nothing is read beyond them, and what is taken joins to lists that split alike.
 */
TEST(any_lists_split_or_are_refused) {
  static const char alphabet[] = "a1,,/@: .\t-";
  SCOPED_ARENA arena = arena_new();
  uint64_t state = 88172645463325252u;
  int taken = 0;
  for (int round = 0; round < 20000; round++) {
    char lists[3][12];
    for (int l = 0; l < 3; l++) {
      int n = 0;
      for (; n < 11; n++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        if (state % 7 == 0)
          break;
        lists[l][n] = l == 2 && state % 3 ? '1' : alphabet[state / 7 % (sizeof(alphabet) - 1)];
      }
      lists[l][n] = 0;
    }
    HostList first, second;
    const char *why = NULL, *names, *addresses, *ports;
    if (hosts_split(lists[0], lists[1], lists[2], arena, &first, &why) == E_OK) {
      taken++;
      hosts_join(&first, arena, &names, &addresses, &ports);
      CHECK_INT(hosts_split(names, addresses, ports, arena, &second, &why), E_OK);
      CHECK_INT(second.count, first.count);
      for (int i = 0; i < first.count; i++)
        CHECK(!strcmp(first.at[i].name, second.at[i].name) && !strcmp(first.at[i].port, second.at[i].port));
    } else {
      CHECK(why != NULL);
    }
    arena_reset(arena);
  }
  CHECK(taken > 100);
}
