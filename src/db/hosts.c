/* Lists of hosts as libpq reads them (its documentation, 34.1.1.3 "Specifying Multiple Hosts"): a comma always
 * separates, and one port may stand for all. */
#include "db/hosts.h"

#include "base/buf.h"

#include <arpa/inet.h>
#include <assert.h>
#include <stdlib.h>
#include <string.h>

static int count_parts(const char *list) {
  int count = 1;
  for (const char *p = list; *p; p++)
    count += *p == ',';
  return count;
}

/* A single part stands for all where one may. */
static const char *part_at(Arena *arena, const char *list, int i) {
  Str rest = str_from(list), part = str_cut(&rest, ',');
  for (; i > 0; i--)
    part = str_cut(&rest, ',');
  return arena_cstr(arena, part.p ? part : STR(""));
}

static bool is_port(const char *text) {
  int64_t number;
  return !*text || (str_to_int(str_trim(str_from(text)), &number) == 0 && number >= 1 && number <= 65535);
}

static bool is_socket(const char *name) {
  return *name == '/' || *name == '@'; /* '@': in Linux' abstract namespace */
}

static const char *problem_of(const Host *h) {
  if (!is_port(h->port))
    return "a port is not a number from 1 to 65535";
  if (!is_socket(h->name) && strpbrk(h->name, "@ \t\r\n"))
    return "a host has a character that no host has";
  return NULL;
}

static int count_hosts(const char *names, const char *addresses, const char *ports, const char **why) {
  int count = *addresses ? count_parts(addresses) : count_parts(names);
  if (*addresses && *names && count_parts(names) != count)
    *why = "there are not as many hosts as addresses (hostaddr)";
  else if (count_parts(ports) != count && count_parts(ports) != 1)
    *why = "there are not as many ports as hosts";
  else if (count > HOSTS_MAX)
    *why = "there are too many hosts";
  else
    return count;
  return E_FIELD;
}

int hosts_split(const char *names, const char *addresses, const char *ports, Arena *arena, HostList *ret,
                const char **why) {
  names = names ? names : "";
  addresses = addresses ? addresses : "";
  ports = ports ? ports : "";
  int count = count_hosts(names, addresses, ports, why);
  TRY(count);
  HostList list = {.count = count};
  bool one_port = count_parts(ports) == 1;
  for (int i = 0; i < count; i++) {
    list.at[i] = (Host){.name = part_at(arena, names, i),
                        .address = part_at(arena, addresses, i),
                        .port = part_at(arena, ports, one_port ? 0 : i)};
    const char *problem = problem_of(&list.at[i]);
    if (problem) {
      *why = problem;
      return E_FIELD;
    }
  }
  *ret = list;
  return E_OK;
}

bool host_is_address(const Host *h) {
  unsigned char ignored[sizeof(struct in6_addr)];
  return !*h->address && (inet_pton(AF_INET, h->name, ignored) == 1 || inet_pton(AF_INET6, h->name, ignored) == 1);
}

bool host_needs_lookup(const Host *h) {
  return !*h->address && *h->name && !is_socket(h->name) && !host_is_address(h);
}

void hosts_add(HostList *list, const Host *host) {
  if (list->count < HOSTS_MAX)
    list->at[list->count++] = *host;
}

static void add_part(Buf *b, int i, const char *part) {
  if (i > 0)
    buf_char(b, ',');
  buf_cstr(b, part);
}

void hosts_join(const HostList *list, Arena *arena, const char **ret_names, const char **ret_addresses,
                const char **ret_ports) {
  assert(list->count > 0 && list->count <= HOSTS_MAX);
  Buf names = {.arena = arena}, addresses = {.arena = arena}, ports = {.arena = arena};
  for (int i = 0; i < list->count; i++) {
    add_part(&names, i, list->at[i].name);
    add_part(&addresses, i, list->at[i].address);
    add_part(&ports, i, list->at[i].port);
  }
  *ret_names = arena_cstr(arena, buf_view(&names));
  *ret_addresses = arena_cstr(arena, buf_view(&addresses));
  *ret_ports = arena_cstr(arena, buf_view(&ports));
}
