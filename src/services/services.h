/* The seven services of the shop, each defined in the .c file of its name. */
#ifndef SKALD_SERVICES_SERVICES_H
#define SKALD_SERVICES_SERVICES_H

#include "service/def.h"

extern const ServiceDef order_service, payment_service, warehouse_service, delivery_service, user_service,
    billing_service, notification_service;

#endif
