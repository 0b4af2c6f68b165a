/* The services of the shop. These two lists are the only place in the sources that names all of them: NAME is used in
 * environment variables, and name in URLs, in logs and for the .c and .sql file. */
#ifndef SKALD_SERVICES_SERVICES_H
#define SKALD_SERVICES_SERVICES_H

#include "service/def.h"

#define SERVICES(X)                                                                                                    \
  X(ORDER, order)                                                                                                      \
  X(PAYMENT, payment)                                                                                                  \
  X(WAREHOUSE, warehouse)                                                                                              \
  X(DELIVERY, delivery)                                                                                                \
  X(USER, user)                                                                                                        \
  X(BILLING, billing)                                                                                                  \
  X(NOTIFICATION, notification)

/* Those that other services call. If one runs in another process, NAME_URL is its address. */
#define SERVICES_CALLED(X)                                                                                             \
  X(PAYMENT, payment)                                                                                                  \
  X(WAREHOUSE, warehouse)                                                                                              \
  X(DELIVERY, delivery)                                                                                                \
  X(USER, user)                                                                                                        \
  X(BILLING, billing)

#define SERVICES_DECLARE(NAME, name) extern const ServiceDef name##_service;
SERVICES(SERVICES_DECLARE)
#undef SERVICES_DECLARE

#endif
