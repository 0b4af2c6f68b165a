/* Names of states. */
#include "saga/state.h"

const char *saga_state_name(SagaState state) {
  static const char *const names[] = {"RUNNING", "COMPENSATING", "SUCCEEDED", "COMPENSATED", "PARKED"};
  return names[state];
}

const char *saga_step_state_name(SagaStepState state) {
  static const char *const names[] = {"WAITING", "DONE", "REFUSED", "MAYBE", "UNDONE"};
  return names[state];
}
