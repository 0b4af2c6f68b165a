/* Each selected service's SQL, then the replication slot on what Billing publishes. */
#include "commands/migrate.h"

#include "cdc/slot.h"
#include "commands/shop.h"
#include "service/migrate.h"
#include "services/notification.h"

#include <stdio.h>

static int64_t patience_us;

static const Option options[] = {
    {.env = "MIGRATE_TIMEOUT",
     .type = OPTION_MILLIS,
     .target = &patience_us,
     .def = "60s",
     .max = 86400000,
     .help = "how long it retries while others hold locks on tables or create the replication slot"},
    {0},
};

static void print_report(bool problem, Str text) {
  fprintf(problem ? stderr : stdout, "%s%.*s\n", problem ? "skald: " : "", STR_FMT(text));
}

static int run(int argc, char **argv) {
  if (shop_select(argc, argv) < 0)
    return 2;
  for (ShopService i = 0; i < SHOP_SERVICES; i++)
    if (shop_selected(i) && migrate_service(shop_service(i), shop_dsn(i), patience_us) < 0)
      return 1;
  return shop_selected(BILLING) && slot_migrate(shop_dsn(BILLING), NOTIFICATION_SLOT, patience_us, print_report) < 0;
}

static const Option *const tables[] = {shop_database_options, options, NULL};

const Command migrate_command = {.name = "migrate",
                                 .arguments = "[service…]",
                                 .help = "creates and upgrades the databases",
                                 .run = run,
                                 .tables = tables};
