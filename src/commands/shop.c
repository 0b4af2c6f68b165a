/* The table of the shop's services. */
#include "commands/shop.h"

#include <string.h>

#define DEFINITION(NAME, name) [NAME] = &name##_service,
static const ServiceDef *const services[SHOP_SERVICES] = {SERVICES(DEFINITION)};

static struct {
  const char *database, *databases[SHOP_SERVICES], *urls[SHOP_SERVICES];
  bool selected[SHOP_SERVICES];
} conf;

#define SERVICE_DATABASE(NAME, name)                                                                                   \
  {                                                                                                                    \
      .env = #NAME "_DATABASE_URL",                                                                                    \
      .type = OPTION_TEXT,                                                                                             \
      .target = &conf.databases[NAME],                                                                                 \
      .help = "the same, for this service alone",                                                                      \
      .secret = true,                                                                                                  \
  },
#define SERVICE_URL(NAME, name)                                                                                        \
  {                                                                                                                    \
      .env = #NAME "_URL",                                                                                             \
      .type = OPTION_TEXT,                                                                                             \
      .target = &conf.urls[NAME],                                                                                      \
      .def = "http://" #name ":8080",                                                                                  \
      .help = "its address if it is not in this process",                                                              \
  },
#define DATABASE                                                                                                       \
  {                                                                                                                    \
    .env = "DATABASE_URL", .type = OPTION_TEXT, .target = &conf.database, .def = "postgresql:///skald",                \
    .help = "PostgreSQL 15 or newer, wal_level=logical; a schema per service", .secret = true                          \
  }

const Option shop_billing_options[] = {DATABASE, SERVICE_DATABASE(BILLING, billing){0}};
const Option shop_database_options[] = {DATABASE, SERVICES(SERVICE_DATABASE){0}};
const Option shop_address_options[] = {SERVICES_CALLED(SERVICE_URL){0}};

const ServiceDef *shop_service(ShopService service) {
  return services[service];
}

const char *shop_dsn(ShopService service) {
  return conf.databases[service] ? conf.databases[service] : conf.database;
}

const char *shop_url(ShopService service) {
  return conf.urls[service];
}

static int index_of(const char *name) {
  for (int i = 0; i < SHOP_SERVICES; i++)
    if (!strcmp(services[i]->name, name))
      return i;
  return -1;
}

static void explain_names(const char *wrong) {
  fprintf(stderr, "skald: there is no service '%s'; there are", wrong);
  for (int i = 0; i < SHOP_SERVICES; i++)
    fprintf(stderr, "%s %s", i == 0 ? "" : i == SHOP_SERVICES - 1 ? " and" : ",", services[i]->name);
  fputc('\n', stderr);
}

int shop_select(int argc, char **argv) {
  for (int i = 0; i < SHOP_SERVICES; i++)
    conf.selected[i] = argc == 0;
  for (int a = 0; a < argc; a++) {
    int i = index_of(argv[a]);
    if (i < 0) {
      explain_names(argv[a]);
      return E_FIELD;
    }
    conf.selected[i] = true;
  }
  return 0;
}

bool shop_selected(ShopService service) {
  return conf.selected[service];
}
