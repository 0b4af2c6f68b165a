/* Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): the first response is kept under the key in the same
 * transaction as the act itself, so acting and remembering cannot come apart. A key belongs to one service; the
 * fingerprint is of method, path and body (not of the query, which no keyed route reads). Refusals are not kept:
 * nothing was done. */
#ifndef SKALD_SERVICE_IDEMPOTENCY_H
#define SKALD_SERVICE_IDEMPOTENCY_H

#include "service/req.h"

void idempotency_prepare(Service *s); /* before the fork */
/* Takes the key from the request. If it is known: the reply is the first response (returns 1), or E_KEY_REUSED,
 * E_IN_PROGRESS. */
MUST_CHECK int idempotency_begin(Req *req);
/* The row that keeps req's response, to be committed with the act; status 0: no response yet. */
DbStmt idempotency_insert(Req *req, int status, Str body);
/* The response of an act that was begun with status 0. The values live in the arena. */
DbStmt idempotency_finish(Service *s, Arena *arena, Str key, int status, Str body);
/* For an act that came to nothing: the key may be used again. */
DbStmt idempotency_forget(Service *s, Arena *arena, Str key);
/* For handlers: commits statements as one group, together with the key, if one came, and the response already rendered
 * in req->reply. If the key is there already nothing is done, the reply becomes the first response, and 1 is returned.
 */
MUST_CHECK int idempotency_commit(Req *req, const DbStmt *statements, int count, DbResult *results);
/* The same where only the database knows the response: after the statements, response (a plain SELECT) gives one row of
 * one text column, the JSON body; it is sent with status 200 and kept under the key. ret_results: the statements', when
 * 0 is returned. */
MUST_CHECK int idempotency_commit_response(Req *req, const DbStmt *statements, int count, DbStmt response,
                                           DbResult *ret_results);
/* After a commit of ours ended in E_EXISTS: 1 with the first response if the key was it, else E_CONFLICT. */
MUST_CHECK int idempotency_lost_race(Req *req);
/* Deletes keys older than a day, as long as the process lives: a background fiber. */
void idempotency_retention(void *service);

#endif
