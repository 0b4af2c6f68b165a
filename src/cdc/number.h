/* PostgreSQL's numbers, given as text, in the forms that Java and Kafka Connect give them in JSON. Each function
 * returns false, and writes nothing, where the text is no number that has the form. */
#ifndef SKALD_CDC_NUMBER_H
#define SKALD_CDC_NUMBER_H

#include "base/buf.h"

bool number_is_plain(Str text); /* digits, perhaps a sign and a fraction: a JSON number without exponent */
/* A numeric as the nearest double, in the text of Java's Double.toString: 1000.0, 1.0E7. NaN and what is beyond the
 * range become "NaN", "Infinity" and "-Infinity", quoted as Jackson does it. */
bool number_write_double(Buf *out, Str text);
/* A float4 or float8, whose text is the shortest that means it: the same digits in Java's form. */
bool number_write_float(Buf *out, Str text);
/* The same value with exactly scale digits behind the point; it must not have more. */
bool number_write_plain(Buf *out, Str text, int scale);
/* org.apache.kafka.connect.data.Decimal: the value times 10^scale in big-endian two's complement, as base64. */
bool number_write_decimal(Buf *out, Str text, int scale);
/* io.debezium.data.VariableScaleDecimal: the value and its own scale, trailing zeros left out. */
bool number_write_variable(Buf *out, Str text);

void base64_write(Buf *out, const uint8_t *bytes, size_t n); /* RFC 4648 §4, without quotes */

#endif
