/* What succeeded experiments found, as JSON text. It never changes again and numbers (seq) are
 * never given twice, so what was made once is kept, up to a bound, without a thought for who might
 * change it. Threads may share it.
 */
#ifndef API_OUTCOMES_H
#define API_OUTCOMES_H

#include "api/text.h"
#include "server/store.h"

struct outcomes;

int outcomes_new(struct outcomes **outcomes, struct store *store, struct ovr_err *err);
void outcomes_free(struct outcomes *outcomes); /* NULL is fine */

/* Adds the member "result", and "provenance" where the whole is wanted, to the object that the text
 * ends with. The experiment must have succeeded. */
int outcomes_add(struct outcomes *outcomes, int64_t seq, int whole, struct text *text,
                 struct ovr_err *err);

#endif
