/* The services of the shop. These two lists are the only place in the sources that names them all: NAME as environment
 * variables have it, name as URLs and logs have it, which is also that of its .c and .sql file. */
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

/* Those that other services call. Where one runs in another process, NAME_URL says where. */
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
