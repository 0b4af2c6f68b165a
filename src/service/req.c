/* What handlers do with a request: parameters, database, response. */
#include "service/req.h"

#include "json/json.h"
#include "json/text.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

#define PAGE_DEFAULT 100
#define PAGE_MAX     1000

/* What the route captured there. */
static Str path_param(const Req *req, int param) {
  assert(param >= 0 && param < ROUTE_PARAMS);
  return req->params[param];
}

static int reply_buf(Req *req, int status, const Buf *body) {
  assert(status >= 200 && status < 600);
  req->reply->status = status;
  req->reply->content_type = "application/json";
  req->reply->body = buf_view(body);
  return 0;
}

int reply_object(Req *req, int status, const Field *fields, const void *object) {
  Buf b = {.arena = req->arena};
  json_write(&b, fields, object);
  return reply_buf(req, status, &b);
}

int reply_list(Req *req, int status, const Field *fields, size_t size, List list) {
  Buf b = {.arena = req->arena};
  json_write_list(&b, fields, size, list);
  return reply_buf(req, status, &b);
}

int reply_json(Req *req, int status, Str json) {
  Buf b = {.arena = req->arena};
  buf_str(&b, json);
  return reply_buf(req, status, &b);
}

int reply_status(Req *req, bool status) {
  return reply_json(req, 200, status ? STR("{\"status\":true}") : STR("{\"status\":false}"));
}

int fail(Req *req, int code, const char *pointer, const char *format, ...) {
  assert(code < 0);
  req->pointer = pointer ? arena_str(req->arena, str_from(pointer)) : (Str){0};
  req->detail = (Str){0};
  if (format) {
    va_list args;
    va_start(args, format);
    req->detail = arena_vprintf(req->arena, format, args);
    va_end(args);
  }
  return code;
}

int req_uuid(Req *req, int param, Uuid *ret) {
  Str text = path_param(req, param);
  if (uuid_parse(text, ret) < 0)
    return fail(req, E_MALFORMED, NULL, "'%.*s' in the path is not a UUID", STR_FMT(text));
  return 0;
}

int req_money(Req *req, int param, Money *ret) {
  Str text = path_param(req, param);
  Money value;
  int rc = money_parse(text, &value);
  if (rc == E_RANGE)
    return fail(req, rc, NULL, "'%.*s' in the path is more money than can be stored", STR_FMT(text));
  if (rc < 0)
    return fail(req, rc, NULL, "'%.*s' in the path is not an amount of money with at most two decimals", STR_FMT(text));
  if (value <= 0)
    return fail(req, E_FIELD, NULL, "the sum in the path must be greater than zero");
  *ret = value;
  return 0;
}

int req_time(Req *req, int param, LocalTime *ret) {
  Str text = path_param(req, param);
  if (localtime_parse(text, ret) < 0)
    return fail(req, E_MALFORMED, NULL, "'%.*s' in the path is not a date and time", STR_FMT(text));
  return 0;
}

int req_text(Req *req, int param, size_t max, Str *ret) {
  Str text = path_param(req, param);
  if (text.n > max)
    return fail(req, E_MALFORMED, NULL, "the text in the path must be 1 to %zu bytes long", max);
  if (text_has_control(text))
    return fail(req, E_MALFORMED, NULL, "the text in the path must not contain control characters");
  if (text_is_blank(text))
    return fail(req, E_MALFORMED, NULL, "the text in the path must not be blank");
  *ret = text;
  return 0;
}

int req_query(Req *req, DbStmt statement, DbResult *result) {
  return db_exec(req->db, req->arena, statement, result, req->http->deadline_us);
}

int req_row(Req *req, DbStmt statement, const Field *fields, void *object) {
  DbResult result;
  TRY(req_query(req, statement, &result));
  if (!result.rows)
    return E_NOT_FOUND;
  return db_read_row(&result, 0, fields, object);
}

int req_touch(Req *req, DbStmt statement) {
  DbResult result;
  TRY(req_query(req, statement, &result));
  return reply_status(req, result.affected > 0);
}

static int query_int(Req *req, Str name, int64_t def, int64_t min, int64_t *ret) {
  Str text = http_query(req->http, name);
  *ret = def;
  if (!text.p)
    return 0;
  if (str_to_int(text, ret) < 0 || *ret < min)
    return fail(req, E_MALFORMED, NULL, "%.*s must be a whole number of at least %lld", STR_FMT(name), (long long)min);
  return 0;
}

/* The same address with another page_token. */
static Str next_address(Req *req, Str token) {
  Buf b = {.arena = req->arena};
  buf_char(&b, '<');
  buf_str(&b, req->http->path);
  char separator = '?';
  for (Str rest = req->http->query; rest.p;) {
    Str pair = str_cut(&rest, '&');
    if (!pair.n || str_starts(pair, STR("page_token=")))
      continue;
    buf_char(&b, separator);
    buf_str(&b, pair);
    separator = '&';
  }
  buf_char(&b, separator);
  buf_cstr(&b, "page_token=");
  buf_str(&b, token);
  buf_cstr(&b, ">; rel=\"next\"");
  return buf_view(&b);
}

static int page_key(Req *req, FieldType type, Str *ret) {
  int64_t number;
  Uuid id;
  *ret = http_query(req->http, STR("page_token"));
  if (!ret->p)
    *ret = type == F_INT ? STR("0") : STR("00000000-0000-0000-0000-000000000000");
  if (type == F_INT ? str_to_int(*ret, &number) < 0 : uuid_parse(*ret, &id) < 0)
    return fail(req, E_MALFORMED, NULL, "page_token must be one that a Link header gave");
  return 0;
}

int req_page(Req *req, const Sql *sql, const DbValue *values, int count, const Field *fields, size_t size,
             FieldType key) {
  int64_t limit;
  Str after;
  TRY(query_int(req, STR("page_size"), PAGE_DEFAULT, 1, &limit));
  TRY(page_key(req, key, &after));
  limit = limit < PAGE_MAX ? limit : PAGE_MAX;
  DbValue *all = ARENA_ARRAY(req->arena, DbValue, (size_t)count + 2);
  if (count)
    memcpy(all, values, sizeof(*all) * (size_t)count);
  all[count] = V_TEXT(after);
  all[count + 1] = V_INT(limit);
  DbResult result;
  TRY(req_query(req, (DbStmt){.sql = sql, .values = all, .count = count + 2}, &result));
  List list;
  TRY(db_read_rows(req->arena, &result, fields, size, &list));
  reply_list(req, 200, fields, size, list);
  if (result.rows == limit)
    http_reply_header(req->reply, STR("link"),
                      next_address(req, db_cell(&result, result.rows - 1, result.columns - 1)));
  return 0;
}
