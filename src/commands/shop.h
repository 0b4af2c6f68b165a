/* The services of the shop, their databases and addresses, as commands and environment choose them. */
#ifndef SKALD_COMMANDS_SHOP_H
#define SKALD_COMMANDS_SHOP_H

#include "rt/config.h"
#include "services/services.h"

#define SHOP_ENUM(NAME, name) NAME,
typedef enum ShopService { SERVICES(SHOP_ENUM) SHOP_SERVICES } ShopService;
#undef SHOP_ENUM

extern const Option shop_database_options[]; /* of all services */
extern const Option shop_billing_options[];  /* of Billing alone */
extern const Option shop_address_options[];  /* addresses of services that others call */

const ServiceDef *shop_service(ShopService service);
const char *shop_dsn(ShopService service);
const char *shop_url(ShopService service); /* NULL: it has none */
/* Selects the named services, or all of them if none is named. E_FIELD: there is no such service; stderr says so. */
MUST_CHECK int shop_select(int argc, char **argv);
bool shop_selected(ShopService service);

#endif
