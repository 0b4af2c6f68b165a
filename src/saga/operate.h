/* What operators do to a service's sagas: handlers for its route table, all with ROUTE_KEYED. The service's state is
 * its engine. Each leaves a trace, which saga_show and saga_list show; who it was is said by the header X-Operator. */
#ifndef SKALD_SAGA_OPERATE_H
#define SKALD_SAGA_OPERATE_H

#include "service/req.h"

typedef struct SagaOperation {
  Str step, reason;
} SagaOperation;

extern const Field saga_remark_fields[], saga_skip_fields[];

/* POST …/saga/{id}/retry, with saga_remark_fields and ROUTE_BODY_OPTIONAL: a parked saga goes on where it was. */
int saga_retry(Req *req, void *in);
/* POST …/saga/{id}/cancel, with the same: a saga that still runs forward is compensated, whichever process runs it. */
int saga_cancel(Req *req, void *in);
/* POST …/saga/{id}/skip, with saga_skip_fields: a parked saga goes on without the step it is parked at. */
int saga_skip(Req *req, void *in);

#endif
