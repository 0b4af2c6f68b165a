/* The table of the shop's services. */
#include "commands/shop.h"

#include "services/services.h"

#include <string.h>

static const ServiceDef *const services[SHOP_SERVICES] = {[ORDER] = &order_service,
                                                          [PAYMENT] = &payment_service,
                                                          [WAREHOUSE] = &warehouse_service,
                                                          [DELIVERY] = &delivery_service,
                                                          [USER] = &user_service,
                                                          [BILLING] = &billing_service,
                                                          [NOTIFICATION] = &notification_service};

static struct {
  const char *database, *databases[SHOP_SERVICES], *urls[SHOP_SERVICES];
  bool selected[SHOP_SERVICES];
} conf;

#define SERVICE_DATABASE(NAME)                                                                                         \
  {                                                                                                                    \
    .env = #NAME "_DATABASE_URL", .type = OPTION_TEXT, .target = &conf.databases[NAME],                                \
    .help = "the same, for this service alone", .secret = true                                                         \
  }
#define SERVICE_URL(NAME, address)                                                                                     \
  {                                                                                                                    \
    .env = #NAME "_URL", .type = OPTION_TEXT, .target = &conf.urls[NAME], .def = address,                              \
    .help = "where it is when it is not in this process"                                                               \
  }
#define DATABASE                                                                                                       \
  {                                                                                                                    \
    .env = "DATABASE_URL", .type = OPTION_TEXT, .target = &conf.database, .def = "postgresql:///skald",                \
    .help = "PostgreSQL 15 or newer, wal_level=logical; a schema per service", .secret = true                          \
  }

const Option shop_billing_options[] = {DATABASE, SERVICE_DATABASE(BILLING), {0}};

const Option shop_database_options[] = {
    DATABASE,
    SERVICE_DATABASE(ORDER),
    SERVICE_DATABASE(PAYMENT),
    SERVICE_DATABASE(WAREHOUSE),
    SERVICE_DATABASE(DELIVERY),
    SERVICE_DATABASE(USER),
    SERVICE_DATABASE(BILLING),
    SERVICE_DATABASE(NOTIFICATION),
    {0},
};

const Option shop_address_options[] = {
    SERVICE_URL(PAYMENT, "http://payment:8080"),   SERVICE_URL(WAREHOUSE, "http://warehouse:8080"),
    SERVICE_URL(DELIVERY, "http://delivery:8080"), SERVICE_URL(USER, "http://user:8080"),
    SERVICE_URL(BILLING, "http://billing:8080"),   {0},
};

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

int shop_select(int argc, char **argv) {
  for (int i = 0; i < SHOP_SERVICES; i++)
    conf.selected[i] = argc == 0;
  for (int a = 0; a < argc; a++) {
    int i = index_of(argv[a]);
    if (i < 0) {
      fprintf(stderr,
              "skald: there is no service '%s'; there are order, payment, warehouse, delivery, user, billing and "
              "notification\n",
              argv[a]);
      return E_FIELD;
    }
    conf.selected[i] = true;
  }
  return 0;
}

bool shop_selected(ShopService service) {
  return conf.selected[service];
}
