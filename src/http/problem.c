/* Problem details as JSON. */
#include "http/problem.h"

#include "json/json.h"

#include <assert.h>

#define TEXT_MAX 300

static void member(Buf *b, const char *name, Str value) {
  if (!value.p)
    return;
  buf_printf(b, ",\"%s\":", name);
  buf_json_string(b, value);
}

void problem_reply(Arena *arena, const Problem *problem, HttpReply *reply) {
  assert(problem->code < 0);
  const ErrInfo *info = err_info(problem->code);
  Buf b = {.arena = arena};
  buf_printf(&b, "{\"type\":\"urn:skald:problem:%s\",\"title\":", info->name);
  buf_json_string(&b, problem->title.p ? problem->title : str_from(info->title));
  /* A member called status that is a text, as the saga's clients want it, replaces the number. */
  if (!problem->members.p || !str_starts(problem->members, STR("\"status\"")))
    buf_printf(&b, ",\"status\":%d", info->status);
  member(&b, "detail", problem->detail);
  member(&b, "pointer", problem->pointer);
  if (problem->members.p) {
    buf_char(&b, ',');
    buf_str(&b, problem->members);
  }
  buf_char(&b, '}');
  *reply = (HttpReply){.status = info->status, .content_type = "application/problem+json", .body = buf_view(&b)};
  if (info->retry)
    http_reply_header(reply, STR("retry-after"), STR("1"));
}

static Str text_member(const JsonValue *problem, Str name) {
  const JsonValue *v = json_get(problem, name);
  return v && v->type == JSON_STRING ? v->text : (Str){0};
}

Str problem_text(Arena *arena, Str body) {
  JsonValue *problem = NULL;
  Str text = {0};
  if (json_parse(arena, body, &problem, NULL) == 0) {
    text = text_member(problem, STR("detail"));
    if (!text.p)
      text = text_member(problem, STR("title"));
  }
  if (text.p)
    return text;
  if (!str_is_utf8(body))
    return STR("a response that is not text");
  return str_utf8_cut(body, TEXT_MAX);
}
