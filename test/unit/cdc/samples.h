/* Change events as Debezium's versions write them, with and without their schema: one purchase of 123.45. */
#ifndef SKALD_TEST_CDC_SAMPLES_H
#define SKALD_TEST_CDC_SAMPLES_H

/* clang-format off */
#define SAMPLE_ID      "6f1c0e1e-2f2b-4b1e-9a53-0d9f0f6c9a11"
#define SAMPLE_ACCOUNT "0b0a4f6e-6f0e-4b0e-8a55-1f0f2f6c9a22"

#define SAMPLE_ROW \
  "{\"id\":\"" SAMPLE_ID "\",\"billing_id\":\"" SAMPLE_ACCOUNT "\",\"sum\":123.45,\"last_value_wallet\":1000.0," \
  "\"current_value_wallet\":876.55,\"type_operation\":\"BUY\",\"status\":\"SUCCESS\"}"
#define SAMPLE_ROWS "\"before\":null,\"after\":" SAMPLE_ROW

#define SAMPLE_SOURCE(version, times, tail) \
  "\"source\":{\"version\":\"" version "\",\"connector\":\"postgresql\",\"name\":\"postgres\"," \
  "\"ts_ms\":1790710562903,\"snapshot\":\"false\",\"db\":\"billing_db\"," \
  "\"sequence\":\"[\\\"306218576\\\",\\\"314477488\\\"]\"," times "\"schema\":\"billing\"," \
  "\"table\":\"history_billings\",\"txId\":65249,\"lsn\":314477488,\"xmin\":null" tail "}"
#define SAMPLE_SOURCE_TIMES "\"ts_us\":1790710562903499,\"ts_ns\":1790710562903499000,"
#define SAMPLE_ORIGIN       ",\"origin\":null,\"origin_lsn\":null"

/* Up to 2.5: no microseconds, and the transaction last. */
#define SAMPLE_OLD(version) \
  "{" SAMPLE_ROWS "," SAMPLE_SOURCE(version, "", "") ",\"op\":\"c\",\"ts_ms\":1790710563391,\"transaction\":null}"
/* Since 2.7.3 the transaction stands before op; since 3.5 the source ends with an origin. */
#define SAMPLE_NEW(version, tail) \
  "{" SAMPLE_ROWS "," SAMPLE_SOURCE(version, SAMPLE_SOURCE_TIMES, tail) ",\"transaction\":null,\"op\":\"c\"," \
  "\"ts_ms\":1790710563391,\"ts_us\":1790710563391393,\"ts_ns\":1790710563391393044}"

#define SAMPLE_2_3 SAMPLE_OLD("2.3.7.Final")
#define SAMPLE_2_5 SAMPLE_OLD("2.5.4.Final")
#define SAMPLE_2_7 SAMPLE_NEW("2.7.3.Final", "")
#define SAMPLE_3_0 SAMPLE_NEW("3.0.0.Final", "")
#define SAMPLE_3_5 SAMPLE_NEW("3.5.0.Final", SAMPLE_ORIGIN)

#define SAMPLE_FIELD(type, optional, name) "{\"type\":\"" type "\",\"optional\":" optional ",\"field\":\"" name "\"}"
#define SAMPLE_ROW_SCHEMA(name) \
  "{\"type\":\"struct\",\"fields\":[" SAMPLE_FIELD("string", "false", "id") "," \
  SAMPLE_FIELD("string", "true", "billing_id") "," SAMPLE_FIELD("double", "true", "sum") "," \
  SAMPLE_FIELD("double", "true", "last_value_wallet") "," SAMPLE_FIELD("double", "true", "current_value_wallet") "," \
  SAMPLE_FIELD("string", "true", "type_operation") "," SAMPLE_FIELD("string", "true", "status") "]," \
  "\"optional\":true,\"name\":\"postgres.billing.history_billings.Value\",\"field\":\"" name "\"}"
#define SAMPLE_SOURCE_SCHEMA \
  "{\"type\":\"struct\",\"fields\":[" SAMPLE_FIELD("string", "false", "version") "," \
  "{\"type\":\"string\",\"optional\":true,\"name\":\"io.debezium.data.Enum\",\"version\":1," \
  "\"parameters\":{\"allowed\":\"true,last,false,incremental\"},\"default\":\"false\",\"field\":\"snapshot\"}," \
  SAMPLE_FIELD("int64", "true", "txId") "," SAMPLE_FIELD("int64", "true", "lsn") "],\"optional\":false," \
  "\"name\":\"io.debezium.connector.postgresql.Source\",\"field\":\"source\"}"
#define SAMPLE_SCHEMA(version) \
  "{\"type\":\"struct\",\"fields\":[" SAMPLE_ROW_SCHEMA("before") "," SAMPLE_ROW_SCHEMA("after") "," \
  SAMPLE_SOURCE_SCHEMA "," SAMPLE_FIELD("string", "false", "op") "," SAMPLE_FIELD("int64", "true", "ts_ms") "]," \
  "\"optional\":false,\"name\":\"postgres.billing.history_billings.Envelope\",\"version\":" version "}"
#define SAMPLE_WITH_SCHEMA(version, payload) "{\"schema\":" SAMPLE_SCHEMA(version) ",\"payload\":" payload "}"
/* clang-format on */

#endif
