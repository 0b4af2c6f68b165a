/* The states of sagas and of their steps, and their names as rows and responses have them. */
#ifndef SKALD_SAGA_STATE_H
#define SKALD_SAGA_STATE_H

typedef enum SagaState { SAGA_RUNNING, SAGA_COMPENSATING, SAGA_SUCCEEDED, SAGA_COMPENSATED, SAGA_PARKED } SagaState;

typedef enum SagaStepState { STEP_WAITING, STEP_DONE, STEP_REFUSED, STEP_MAYBE, STEP_UNDONE } SagaStepState;

const char *saga_state_name(SagaState state);
const char *saga_step_state_name(SagaStepState state);

#endif
