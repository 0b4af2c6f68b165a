/* Forward protocol over msgpack-c. */
#include "log/fluent.h"

#include <msgpack.h>

static int write_buf(void *out, const char *bytes, size_t n) {
  buf_add(out, bytes, n);
  return 0;
}

static msgpack_packer packer_on(Buf *out) {
  msgpack_packer packer;
  msgpack_packer_init(&packer, out, write_buf);
  return packer;
}

static void pack_text(msgpack_packer *p, Str text) {
  msgpack_pack_str_with_body(p, text.p, text.n);
}

static void pack_member(msgpack_packer *p, const char *name, Str value) {
  pack_text(p, str_from(name));
  pack_text(p, value);
}

/* EventTime: extension type 0, seconds and nanoseconds as big-endian 32-bit numbers. */
static void pack_time(msgpack_packer *p, struct timespec time) {
  char bytes[8];
  uint32_t parts[] = {(uint32_t)time.tv_sec, (uint32_t)time.tv_nsec};
  for (int i = 0; i < 8; i++)
    bytes[i] = (char)(parts[i / 4] >> (24 - 8 * (i % 4)));
  msgpack_pack_ext_with_body(p, bytes, sizeof(bytes), 0);
}

void fluent_entry(Buf *out, const LogRecord *r, Str json) {
  msgpack_packer p = packer_on(out);
  msgpack_pack_array(&p, 2);
  pack_time(&p, r->time);
  msgpack_pack_map(&p, 4);
  pack_member(&p, "message", json);
  pack_member(&p, "logger", str_from(r->logger));
  pack_member(&p, "thread", str_from(r->thread));
  pack_member(&p, "level", str_from(log_level_name(r->level)));
}

void fluent_head(Buf *out, Str tag, size_t size) {
  msgpack_packer p = packer_on(out);
  msgpack_pack_array(&p, 3);
  pack_text(&p, tag);
  msgpack_pack_bin(&p, size);
}

void fluent_tail(Buf *out, int entries, Str id) {
  msgpack_packer p = packer_on(out);
  msgpack_pack_map(&p, 2);
  pack_text(&p, STR("size"));
  msgpack_pack_int(&p, entries);
  pack_member(&p, "chunk", id);
}

static Str text_of(const msgpack_object *o) {
  return o->type == MSGPACK_OBJECT_STR ? (Str){o->via.str.ptr, o->via.str.size} : (Str){0};
}

static bool acknowledges(const msgpack_object *response, Str id) {
  if (response->type != MSGPACK_OBJECT_MAP)
    return false;
  for (uint32_t i = 0; i < response->via.map.size; i++) {
    const msgpack_object_kv *member = &response->via.map.ptr[i];
    if (str_eq(text_of(&member->key), STR("ack")))
      return str_eq(text_of(&member->val), id);
  }
  return false;
}

int fluent_ack(Str response, Str id) {
  msgpack_unpacked found;
  size_t end = 0;
  msgpack_unpacked_init(&found);
  msgpack_unpack_return rc = msgpack_unpack_next(&found, response.p, response.n, &end);
  bool whole = rc == MSGPACK_UNPACK_SUCCESS || rc == MSGPACK_UNPACK_EXTRA_BYTES;
  bool ok = whole && acknowledges(&found.data, id);
  msgpack_unpacked_destroy(&found);
  if (ok)
    return 1;
  return rc == MSGPACK_UNPACK_CONTINUE ? 0 : E_MALFORMED;
}
