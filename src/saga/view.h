/* What clients and operators see of a service's sagas: handlers for its route table. The service's state is its engine.
 */
#ifndef SKALD_SAGA_VIEW_H
#define SKALD_SAGA_VIEW_H

#include "service/req.h"

int saga_show(Req *req, void *in); /* GET …/saga/{id}: one saga */
int saga_list(Req *req, void *in); /* GET …/saga?state=&page_size=&page_token=: oldest first */

#endif
