/* What text from a client may be, where it is shown to people or leaves by mail and log. All take UTF-8. */
#ifndef SKALD_JSON_TEXT_H
#define SKALD_JSON_TEXT_H

#include "base/str.h"

bool text_has_control(Str text); /* C0 (line ends and tabs too), DEL or C1 */
bool text_is_blank(Str text);    /* empty, or nothing in it that can be seen */
/* One @ with something on both sides, no blanks or control characters; list separators and angle brackets only in a
 * quoted local part (RFC 5321 §4.1.2). Whether there is such a mailbox only a mail can tell. */
bool text_is_email(Str text);

#endif
