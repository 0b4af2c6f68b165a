/* Framing: what RFC 9112 demands of one request after another, whole and split everywhere, and by the server itself. */
#include "fuzz/http_reader.h"
#include "unit/http/server_process.h"
#include "unit/unit.h"

#include <signal.h>
#include <stdio.h>

#define HOST               "Host: a\r\n"
#define GET(fields)        "GET /x HTTP/1.1\r\n" HOST fields "\r\n"
#define POST(fields, body) "POST /x HTTP/1.1\r\n" HOST fields "\r\n" body
#define LENGTH(n)          "Content-Length: " n "\r\n"
#define CHUNKED            "Transfer-Encoding: chunked\r\n"
#define CHUNKS(chunks)     POST(CHUNKED, chunks)
#define LINE(line)         line "\r\n" HOST "\r\n"
#define ON(host)           "GET /x HTTP/1.1\r\nHost: " host "\r\n\r\n"
#define TARGET(target)     "GET " target " HTTP/1.1\r\n" HOST "\r\n"
#define TIMES16(s)         s s s s s s s s s s s s s s s s
#define TIMES256(s)        TIMES16(TIMES16(s))
#define FIELD              "a:b\r\n"
#define FIELDS_96          TIMES16(FIELD FIELD FIELD FIELD FIELD FIELD)

enum { CLOSED = 1 }; /* accepted, and the last request of its connection */

static const struct Case {
  const char *paragraph, *name;
  Str bytes;
  int status, closed;
  const char *echo; /* of an accepted one: method, target and body */
} cases[] = {
    /* the request line */
    {"9112 §3", "a request", STR(GET("")), 200, 0, "GET /x "},
    {"9112 §3", "any method", STR("BREW /x HTTP/1.1\r\n" HOST "\r\n"), 200, 0, "BREW /x "},
    {"9112 §3", "a method of all token characters", STR("!#$%&'*+-.^_`|~0aZ /x HTTP/1.1\r\n" HOST "\r\n"), 200, 0,
     NULL},
    {"9112 §2.2", "CR LF before it", STR("\r\n" GET("")), 400, 0, NULL},
    {"9112 §2.2", "LF before it", STR("\n" GET("")), 400, 0, NULL},
    {"9112 §2.2", "two CR LF before it", STR("\r\n\r\n" GET("")), 400, 0, NULL},
    {"9112 §2.2", "CR before it", STR("\r" GET("")), 400, 0, NULL},
    {"9112 §3", "a space before it", STR(" " GET("")), 400, 0, NULL},
    {"9112 §3", "a tab before it", STR("\t" GET("")), 400, 0, NULL},
    {"9112 §3", "NUL before it", STR("\0" GET("")), 400, 0, NULL},
    {"9112 §2.2", "a byte order mark before it", STR("\xef\xbb\xbf" GET("")), 400, 0, NULL},
    {"9112 §3", "no target", STR(LINE("GET HTTP/1.1")), 400, 0, NULL},
    {"9112 §3", "an empty target", STR(LINE("GET  HTTP/1.1")), 400, 0, NULL},
    {"9112 §3", "two spaces before the target", STR(LINE("GET  /x HTTP/1.1")), 400, 0, NULL},
    {"9112 §3", "two spaces behind the target", STR(LINE("GET /x  HTTP/1.1")), 400, 0, NULL},
    {"9112 §3", "a space behind the version", STR(LINE("GET /x HTTP/1.1 ")), 400, 0, NULL},
    {"9112 §3", "a tab for a space", STR(LINE("GET\t/x HTTP/1.1")), 400, 0, NULL},
    {"9112 §3", "a tab behind the target", STR(LINE("GET /x\tHTTP/1.1")), 400, 0, NULL},
    {"9112 §3", "a space in the target", STR(LINE("GET /x y HTTP/1.1")), 400, 0, NULL},
    {"9112 §3", "a form feed for a space", STR(LINE("GET\f/x HTTP/1.1")), 400, 0, NULL},
    {"9112 §3", "HTTP/0.9", STR("GET /x\r\n"), 400, 0, NULL},
    {"9112 §2.2", "the request line ends in LF", STR("GET /x HTTP/1.1\n" HOST "\r\n"), 400, 0, NULL},
    {"9112 §2.2", "the request line ends in CR", STR("GET /x HTTP/1.1\r" HOST "\r\n"), 400, 0, NULL},
    {"9112 §2.2", "the request line ends in CR CR LF", STR("GET /x HTTP/1.1\r\r\n" HOST "\r\n"), 400, 0, NULL},
    {"9110 §9.1", "NUL in the method", STR(LINE("G\0T /x HTTP/1.1")), 400, 0, NULL},
    {"9110 §9.1", "a control character in the method", STR(LINE("G\1T /x HTTP/1.1")), 400, 0, NULL},
    {"9110 §9.1", "an escape in the method", STR(LINE("\33[31mGET /x HTTP/1.1")), 400, 0, NULL},
    {"9110 §9.1", "a colon in the method", STR(LINE("GET: /x HTTP/1.1")), 400, 0, NULL},
    {"9110 §9.1", "a method of 32 bytes", STR(TIMES16("AB") " /x HTTP/1.1\r\n" HOST "\r\n"), 200, 0, NULL},
    {"9110 §9.1", "a method of 33 bytes", STR(TIMES16("AB") "C /x HTTP/1.1\r\n" HOST "\r\n"), 400, 0, NULL},
    {"9110 §9.3.6", "CONNECT", STR("CONNECT a:80 HTTP/1.1\r\n" HOST "\r\n"), 400, 0, NULL},
    {"9110 §9.3.6", "CONNECT of a path", STR("CONNECT /x HTTP/1.1\r\n" HOST "\r\n"), 400, 0, NULL},
    {"9110 §9.3.7", "OPTIONS *", STR("OPTIONS * HTTP/1.1\r\n" HOST "\r\n"), 200, 0, "OPTIONS * "},
    {"9112 §3.2.4", "* of another method", STR(TARGET("*")), 400, 0, NULL},
    /* versions */
    {"9112 §2.3", "HTTP/1.0", STR("GET /x HTTP/1.0\r\n\r\n"), 200, CLOSED, "GET /x "},
    {"9112 §C.2.2", "HTTP/1.0 kept", STR("GET /x HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"), 200, 0, NULL},
    {"9112 §9.3", "HTTP/1.0 kept and closed", STR("GET /x HTTP/1.0\r\nConnection: close, keep-alive\r\n\r\n"), 200,
     CLOSED, NULL},
    {"9110 §15.6.6", "HTTP/1.2", STR(LINE("GET /x HTTP/1.2")), 505, 0, NULL},
    {"9110 §15.6.6", "HTTP/1.9", STR(LINE("GET /x HTTP/1.9")), 505, 0, NULL},
    {"9110 §15.6.6", "HTTP/2.0", STR(LINE("GET /x HTTP/2.0")), 505, 0, NULL},
    {"9110 §15.6.6", "HTTP/0.9 by number", STR(LINE("GET /x HTTP/0.9")), 505, 0, NULL},
    {"9113 §3.4", "the preface of HTTP/2", STR("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 400, 0, NULL},
    {"9112 §2.3", "HTTP/1.10", STR(LINE("GET /x HTTP/1.10")), 400, 0, NULL},
    {"9112 §2.3", "HTTP/11", STR(LINE("GET /x HTTP/11")), 400, 0, NULL},
    {"9112 §2.3", "HTTP/1", STR(LINE("GET /x HTTP/1")), 400, 0, NULL},
    {"9112 §2.3", "HTTP/1,1", STR(LINE("GET /x HTTP/1,1")), 400, 0, NULL},
    {"9112 §2.3", "HTTP/x.y", STR(LINE("GET /x HTTP/x.y")), 400, 0, NULL},
    {"9112 §2.3", "http/1.1", STR(LINE("GET /x http/1.1")), 400, 0, NULL},
    {"9112 §2.3", "HTTPS/1.1", STR(LINE("GET /x HTTPS/1.1")), 400, 0, NULL},
    {"9112 §2.3", "ICE/1.0", STR(LINE("GET /x ICE/1.0")), 400, 0, NULL},
    /* targets */
    {"9112 §3.2.1", "a path and a query", STR(TARGET("/a/b?c=d?e")), 200, 0, "GET /a/b?c=d?e "},
    {"9112 §3.2.1", "an empty query", STR(TARGET("/a?")), 200, 0, "GET /a? "},
    {"9112 §3.2.1", "two slashes", STR(TARGET("//a")), 200, 0, "GET //a "},
    {"9112 §3.2.2", "absolute", STR(TARGET("http://shop.example/a?b")), 200, 0, "GET /a?b "},
    {"9112 §3.2.2", "absolute with https and a port", STR(TARGET("HTTPS://shop.example:443/a")), 200, 0, "GET /a "},
    {"9110 §4.2.3", "absolute without a path", STR(TARGET("http://shop.example")), 200, 0, "GET / "},
    {"9110 §4.2.3", "absolute with a query alone", STR(TARGET("http://shop.example?b")), 200, 0, "GET /?b "},
    {"9112 §3.2.2", "absolute, of IPv6", STR(TARGET("http://[::1]:80/a")), 200, 0, "GET /a "},
    {"9110 §4.2.1", "absolute without a host", STR(TARGET("http:///a")), 400, 0, NULL},
    {"9110 §4.2.1", "absolute without anything", STR(TARGET("http://")), 400, 0, NULL},
    {"9110 §4.2.1", "absolute with a port alone", STR(TARGET("http://:80/a")), 400, 0, NULL},
    {"9110 §4.2.4", "absolute with a user", STR(TARGET("http://u:p@shop.example/a")), 400, 0, NULL},
    {"9112 §3.2.2", "absolute of another scheme", STR(TARGET("ftp://shop.example/a")), 400, 0, NULL},
    {"9112 §3.2.2", "absolute without Host", STR("GET http://a/x HTTP/1.1\r\n\r\n"), 400, 0, NULL},
    {"9112 §3.2", "a name", STR(TARGET("x")), 400, 0, NULL},
    {"9112 §3.2", "a query alone", STR(TARGET("?x")), 400, 0, NULL},
    {"9112 §3.2.3", "an authority", STR(TARGET("a:80")), 400, 0, NULL},
    {"9112 §3.2", "a fragment", STR(TARGET("/x#y")), 400, 0, NULL},
    {"9112 §3.2", "NUL in the target", STR(TARGET("/\0x")), 400, 0, NULL},
    {"9112 §3.2", "a control character in the target", STR(TARGET("/\1x")), 400, 0, NULL},
    {"9112 §3.2", "DEL in the target", STR(TARGET("/\177x")), 400, 0, NULL},
    {"9112 §3.2", "UTF-8 in the target", STR(TARGET("/\xc3\xa9")), 400, 0, NULL},
    {"9112 §3.2", "CR in the target", STR(TARGET("/x\ry")), 400, 0, NULL},
    {"9112 §3.2", "LF in the target", STR(TARGET("/x\ny")), 400, 0, NULL},
    {"9112 §3", "a target of 8 KiB",
     STR(TARGET("/" TIMES256("0123456789abcdef0123456789abcde") TIMES16("0123456789abcde") "012345678901234")), 200, 0,
     NULL},
    {"9110 §15.5.15", "a longer target", STR(TARGET("/" TIMES256("0123456789abcdef0123456789abcdef"))), 414, 0, NULL},
    /* Host */
    {"9112 §3.2", "no Host", STR("GET /x HTTP/1.1\r\n\r\n"), 400, 0, NULL},
    {"9112 §3.2", "two Hosts", STR(GET("Host: b\r\n")), 400, 0, NULL},
    {"9112 §3.2", "two equal Hosts", STR(GET("HOST: a\r\n")), 400, 0, NULL},
    {"9112 §3.2", "two Hosts of HTTP/1.0", STR("GET /x HTTP/1.0\r\n" HOST HOST "\r\n"), 400, 0, NULL},
    {"9110 §7.2", "an empty Host", STR(ON("")), 200, 0, NULL},
    {"9110 §7.2", "Host with a port", STR(ON("shop.example:8080")), 200, 0, NULL},
    {"9110 §7.2", "Host of IPv6", STR(ON("[2001:db8::1]:80")), 200, 0, NULL},
    {"9110 §7.2", "Host of an unfinished IPv6", STR(ON("[::1")), 400, 0, NULL},
    {"9110 §7.2", "Host with bytes behind an IPv6", STR(ON("[::1]x")), 400, 0, NULL},
    {"9110 §7.2", "Host with a path", STR(ON("a/b")), 400, 0, NULL},
    {"9110 §7.2", "Host with a user", STR(ON("u@a")), 400, 0, NULL},
    {"9110 §7.2", "Host with a space", STR(ON("a b")), 400, 0, NULL},
    {"9110 §7.2", "Host with a port of words", STR(ON("a:b")), 400, 0, NULL},
    {"9110 §7.2", "Host with two ports", STR(ON("a:1:2")), 400, 0, NULL},
    {"9110 §7.2", "Host of UTF-8", STR(ON("\xc3\xa9")), 400, 0, NULL},
    /* header fields */
    {"9112 §5", "no space behind the colon", STR(GET("a:b\r\n")), 200, 0, NULL},
    {"9112 §5", "white space around a value", STR(GET("a: \t b \t \r\n")), 200, 0, NULL},
    {"9112 §5", "an empty value", STR(GET("a:\r\nb: \r\n")), 200, 0, NULL},
    {"9110 §5.5", "bytes beyond ASCII in a value", STR(GET("a: \xc3\xa9\xff\r\n")), 200, 0, NULL},
    {"9112 §5.1", "a space before the colon", STR(GET("a : b\r\n")), 400, 0, NULL},
    {"9112 §5.1", "a tab before the colon", STR(GET("a\t: b\r\n")), 400, 0, NULL},
    {"9112 §5.1", "a space before Host's colon", STR("GET /x HTTP/1.1\r\nHost : a\r\n\r\n"), 400, 0, NULL},
    {"9112 §5.2", "a folded line", STR(GET("a: b\r\n c\r\n")), 400, 0, NULL},
    {"9112 §5.2", "a line folded by a tab", STR(GET("a: b\r\n\tc\r\n")), 400, 0, NULL},
    {"9112 §5.2", "a blank folded line", STR(GET("a: b\r\n \r\n")), 400, 0, NULL},
    {"9112 §5.2", "a folded line that hides a length", STR(POST("a: b\r\n Content-Length: 5\r\n", "")), 400, 0, NULL},
    {"9112 §5.2", "a folded length", STR(POST("Content-Length:\r\n 5\r\n", "01234")), 400, 0, NULL},
    {"9112 §5.2", "a folded encoding", STR(POST("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n")), 400, 0, NULL},
    {"9112 §2.2", "white space before the first field", STR("GET /x HTTP/1.1\r\n Host: a\r\n\r\n"), 400, 0, NULL},
    {"9112 §5", "no colon", STR(GET("nonsense\r\n")), 400, 0, NULL},
    {"9112 §5", "an empty name", STR(GET(": b\r\n")), 400, 0, NULL},
    {"9110 §5.1", "a space in a name", STR(GET("a b: c\r\n")), 400, 0, NULL},
    {"9110 §5.1", "NUL in a name", STR(GET("a\0: b\r\n")), 400, 0, NULL},
    {"9110 §5.1", "a bracket in a name", STR(GET("a[]: b\r\n")), 400, 0, NULL},
    {"9110 §5.1", "a byte beyond ASCII in a name", STR(GET("\xc3\xa9: b\r\n")), 400, 0, NULL},
    {"9110 §5.5", "NUL in a value", STR(GET("a: b\0c\r\n")), 400, 0, NULL},
    {"9110 §5.5", "a control character in a value", STR(GET("a: b\1c\r\n")), 400, 0, NULL},
    {"9110 §5.5", "a vertical tab in a value", STR(GET("a: b\vc\r\n")), 400, 0, NULL},
    {"9110 §5.5", "DEL in a value", STR(GET("a: b\177c\r\n")), 400, 0, NULL},
    {"9112 §2.2", "CR in a value", STR(GET("a: b\rContent-Length: 5\r\n")), 400, 0, NULL},
    {"9112 §2.2", "LF in a value", STR(GET("a: b\nContent-Length: 5\r\n")), 400, 0, NULL},
    {"9112 §2.2", "CR CR LF behind a value", STR(GET("a: b\r\r\n")), 400, 0, NULL},
    {"9112 §2.2", "LF for the empty line", STR("GET /x HTTP/1.1\r\n" HOST "\n"), 400, 0, NULL},
    {"9112 §2.2", "CR for the empty line", STR("GET /x HTTP/1.1\r\n" HOST "\rX"), 400, 0, NULL},
    {"9110 §5.4", "a hundred fields", STR("GET /x HTTP/1.1\r\n" HOST FIELDS_96 FIELD FIELD FIELD "\r\n"), 200, 0, NULL},
    {"9110 §5.4", "a hundred and one fields", STR("GET /x HTTP/1.1\r\n" HOST FIELDS_96 FIELD FIELD FIELD FIELD "\r\n"),
     431, 0, NULL},
    {"6585 §5", "a field of 32 KiB", STR(GET("a: " TIMES256(TIMES16("12345678")) "\r\n")), 431, 0, NULL},
    {"6585 §5", "a name of 32 KiB", STR(GET(TIMES256(TIMES16("12345678")) ": a\r\n")), 431, 0, NULL},
    {"6585 §5", "a field of 31 KiB",
     STR(GET("a: " TIMES256("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789"
                            "abcdef0123456789abcdef012345678") "\r\n")),
     200, 0, NULL},
    /* Content-Length */
    {"9112 §6.2", "a length", STR(POST(LENGTH("3"), "abc")), 200, 0, "POST /x abc"},
    {"9112 §6.2", "the length 0", STR(POST(LENGTH("0"), "")), 200, 0, "POST /x "},
    {"9112 §6.3", "no length: no body", STR(POST("", "")), 200, 0, "POST /x "},
    {"9110 §8.6", "leading zeros", STR(POST(LENGTH("003"), "abc")), 200, 0, "POST /x abc"},
    {"9110 §5.5", "white space around a length", STR(POST("Content-Length: \t3 \t\r\n", "abc")), 200, 0, "POST /x abc"},
    {"9110 §9.3.1", "a body of GET", STR(GET(LENGTH("3")) "abc"), 200, 0, "GET /x abc"},
    {"9112 §6.3", "two lengths", STR(POST(LENGTH("3") LENGTH("4"), "abc")), 400, 0, NULL},
    {"9112 §6.3", "two equal lengths", STR(POST(LENGTH("3") "content-length: 3\r\n", "abc")), 400, 0, NULL},
    {"9112 §6.3", "a list of lengths", STR(POST(LENGTH("3, 3"), "abc")), 400, 0, NULL},
    {"9110 §8.6", "a list of lengths without a space", STR(POST(LENGTH("3,3"), "abc")), 400, 0, NULL},
    {"9110 §8.6", "an empty length", STR(POST("Content-Length:\r\n", "abc")), 400, 0, NULL},
    {"9110 §8.6", "a blank length", STR(POST("Content-Length:  \r\n", "abc")), 400, 0, NULL},
    {"9110 §8.6", "a negative length", STR(POST(LENGTH("-3"), "abc")), 400, 0, NULL},
    {"9110 §8.6", "a length with a plus", STR(POST(LENGTH("+3"), "abc")), 400, 0, NULL},
    {"9110 §8.6", "a hexadecimal length", STR(POST(LENGTH("0x3"), "abc")), 400, 0, NULL},
    {"9110 §8.6", "a fractional length", STR(POST(LENGTH("3.0"), "abc")), 400, 0, NULL},
    {"9110 §8.6", "a length with an exponent", STR(POST(LENGTH("3e0"), "abc")), 400, 0, NULL},
    {"9110 §8.6", "a length of words", STR(POST(LENGTH("three"), "abc")), 400, 0, NULL},
    {"9110 §8.6", "a length with a space in it", STR(POST(LENGTH("3 3"), "abc")), 400, 0, NULL},
    {"9110 §8.6", "a quoted length", STR(POST(LENGTH("\"3\""), "abc")), 400, 0, NULL},
    {"9110 §8.6", "a length in Arabic digits", STR(POST(LENGTH("\xd9\xa3"), "abc")), 400, 0, NULL},
    {"9110 §8.6", "a length beyond 64 bits", STR(POST(LENGTH("18446744073709551619"), "abc")), 400, 0, NULL},
    {"9110 §8.6", "a length beyond 63 bits", STR(POST(LENGTH("9223372036854775808"), "abc")), 400, 0, NULL},
    {"9110 §15.5.14", "a length beyond the limit", STR(POST(LENGTH("1048577"), "abc")), 413, 0, NULL},
    {"9110 §15.5.14", "a length beyond the limit of one that waits",
     STR(POST(LENGTH("1048577") "Expect: 100-continue\r\n", "")), 413, 0, NULL},
    {"9112 §5.1", "a space before the length's colon", STR(POST("Content-Length : 3\r\n", "abc")), 400, 0, NULL},
    /* Transfer-Encoding */
    {"9112 §7.1", "chunks", STR(CHUNKS("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n")), 200, 0, "POST /x abc"},
    {"9112 §7", "CHUNKED", STR(POST("transfer-encoding: CHUNKED\r\n", "1\r\na\r\n0\r\n\r\n")), 200, 0, "POST /x a"},
    {"9112 §7.1", "no chunk but the last", STR(CHUNKS("0\r\n\r\n")), 200, 0, "POST /x "},
    {"9112 §6.3", "both lengths", STR(POST(LENGTH("5") CHUNKED, "0\r\n\r\n")), 400, 0, NULL},
    {"9112 §6.3", "both lengths the other way round", STR(POST(CHUNKED LENGTH("5"), "0\r\n\r\n")), 400, 0, NULL},
    {"9112 §6.3", "the length 0 and chunks", STR(POST(LENGTH("0") CHUNKED, "0\r\n\r\n")), 400, 0, NULL},
    {"9112 §6.1", "chunked twice", STR(POST(CHUNKED CHUNKED, "0\r\n\r\n")), 400, 0, NULL},
    {"9112 §6.1", "chunked twice in a list", STR(POST("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n")), 400, 0,
     NULL},
    {"9112 §6.1", "gzip, chunked", STR(POST("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")), 400, 0, NULL},
    {"9112 §6.3", "chunked, identity", STR(POST("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n")), 400, 0,
     NULL},
    {"9112 §6.3", "gzip", STR(POST("Transfer-Encoding: gzip\r\n", "0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7", "identity and a length", STR(POST("Transfer-Encoding: identity\r\n" LENGTH("3"), "abc")), 400, 0, NULL},
    {"9112 §6.1", "an empty encoding", STR(POST("Transfer-Encoding:\r\n", "0\r\n\r\n")), 400, 0, NULL},
    {"9112 §6.1", "an unknown encoding", STR(POST("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n")), 400, 0, NULL},
    {"9112 §6.1", "a quoted encoding", STR(POST("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7", "an encoding with a parameter", STR(POST("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n")), 400, 0,
     NULL},
    {"9112 §6.1", "an encoding behind a vertical tab", STR(POST("Transfer-Encoding: \vchunked\r\n", "0\r\n\r\n")), 400,
     0, NULL},
    {"9112 §6.1", "a comma behind the encoding", STR(POST("Transfer-Encoding: chunked,\r\n", "0\r\n\r\n")), 400, 0,
     NULL},
    {"9112 §5.1", "a space before the encoding's colon", STR(POST("Transfer-Encoding : chunked\r\n", "0\r\n\r\n")), 400,
     0, NULL},
    {"9112 §6.1", "chunked in HTTP/1.0", STR("POST /x HTTP/1.0\r\n" CHUNKED "\r\n0\r\n\r\n"), 400, 0, NULL},
    /* chunks */
    {"9112 §7.1", "capitals in a size", STR(CHUNKS("A\r\n0123456789\r\n0\r\n\r\n")), 200, 0, "POST /x 0123456789"},
    {"9112 §7.1", "leading zeros in a size", STR(CHUNKS("0001\r\na\r\n000\r\n\r\n")), 200, 0, "POST /x a"},
    {"9112 §7.1", "CR LF in a chunk", STR(CHUNKS("4\r\n\r\n\r\n\r\n0\r\n\r\n")), 200, 0, "POST /x \r\n\r\n"},
    {"9112 §7.1", "no size", STR(CHUNKS("\r\na\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1", "a size of words", STR(CHUNKS("zz\r\na\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1", "a negative size", STR(CHUNKS("-1\r\na\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1", "a size with a plus", STR(CHUNKS("+1\r\na\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1", "a size with 0x", STR(CHUNKS("0x1\r\na\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1", "a space before a size", STR(CHUNKS(" 1\r\na\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1", "a space behind a size", STR(CHUNKS("1 \r\na\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1", "a tab behind a size", STR(CHUNKS("1\t\r\na\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1", "NUL behind a size", STR(CHUNKS("1\0\r\na\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1", "a size beyond 64 bits", STR(CHUNKS("10000000000000001\r\na\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9110 §15.5.14", "a size of 64 bits", STR(CHUNKS("ffffffffffffffff\r\na")), 413, 0, NULL},
    {"9110 §15.5.14", "a size beyond the limit", STR(CHUNKS("1\r\na\r\n100000\r\n")), 413, 0, NULL},
    {"9112 §2.2", "LF behind a size", STR(CHUNKS("1\na\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §2.2", "CR behind a size", STR(CHUNKS("1\ra\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1", "LF behind a chunk", STR(CHUNKS("1\r\na\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1", "CR behind a chunk", STR(CHUNKS("1\r\na\r0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1", "another byte for LF behind a chunk", STR(CHUNKS("1\r\na\rX0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1", "a chunk longer than its size", STR(CHUNKS("1\r\nabc\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1", "nothing behind a chunk", STR(CHUNKS("1\r\na0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1", "LF for the last line", STR(CHUNKS("0\r\n\n")), 400, 0, NULL},
    {"9112 §7.1", "LF behind the last size", STR(CHUNKS("0\n\r\n")), 400, 0, NULL},
    {"9112 §7.1", "CR for the last line", STR(CHUNKS("0\r\n\rX")), 400, 0, NULL},
    {"9112 §7.1.1", "an extension", STR(CHUNKS("1;a\r\nx\r\n0;b=c\r\n\r\n")), 200, 0, "POST /x x"},
    {"9112 §7.1.1", "two extensions", STR(CHUNKS("1;a;b\r\nx\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1.1", "an extension with two values", STR(CHUNKS("1;a=b=c\r\nx\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1.1", "a quoted extension", STR(CHUNKS("1;a=\"b\"\r\nx\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1.1", "an empty extension", STR(CHUNKS("1;\r\nx\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1.1", "an extension without a value", STR(CHUNKS("1;a=\r\nx\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1.1", "an extension with LF", STR(CHUNKS("1;a\nx\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1.1", "an extension with CR", STR(CHUNKS("1;a\rb\r\nx\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1.1", "an extension that quotes CR LF", STR(CHUNKS("1;a=\"\r\nx\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1.1", "an extension of 1 KiB", STR(CHUNKS("1;" TIMES256("abcd") "\r\nx\r\n0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1.1", "extensions of 1 KiB", STR(CHUNKS(TIMES256("1;abc\r\nx\r\n") "0\r\n\r\n")), 400, 0, NULL},
    {"9112 §7.1.2", "a trailer", STR(CHUNKS("1\r\na\r\n0\r\nx: y\r\nz:\r\n\r\n")), 200, 0, "POST /x a"},
    {"9112 §7.1.2", "a trailer of 1 KiB", STR(CHUNKS("0\r\nx: " TIMES256("abcd") "\r\n\r\n")), 400, 0, NULL},
    {"9110 §6.5.1", "a length in the trailer", STR(CHUNKS("0\r\nContent-Length: 5\r\n\r\n")), 400, 0, NULL},
    {"9110 §6.5.1", "an encoding in the trailer", STR(CHUNKS("0\r\nTransfer-Encoding: chunked\r\n\r\n")), 400, 0, NULL},
    {"9110 §6.5.1", "Host in the trailer", STR(CHUNKS("0\r\nHost: b\r\n\r\n")), 400, 0, NULL},
    {"9112 §5.2", "a folded trailer", STR(CHUNKS("0\r\nx: y\r\n z\r\n\r\n")), 400, 0, NULL},
    {"9112 §5.1", "a space before a trailer's colon", STR(CHUNKS("0\r\nx : y\r\n\r\n")), 400, 0, NULL},
    {"9112 §2.2", "LF behind a trailer", STR(CHUNKS("0\r\nx: y\n\r\n")), 400, 0, NULL},
    {"9112 §2.2", "CR in a trailer", STR(CHUNKS("0\r\nx: y\rz\r\n\r\n")), 400, 0, NULL},
    {"9110 §5.5", "NUL in a trailer", STR(CHUNKS("0\r\nx: \0\r\n\r\n")), 400, 0, NULL},
    /* the rest of a head */
    {"9112 §9.6", "Connection: close", STR(GET("Connection: close\r\n")), 200, CLOSED, NULL},
    {"9110 §7.6.1", "close in a list", STR(GET("Connection: x, Close\r\n")), 200, CLOSED, NULL},
    {"9110 §7.8", "an upgrade that is not made", STR(GET("Connection: Upgrade\r\nUpgrade: websocket\r\n")), 200, 0,
     "GET /x "},
    {"9110 §7.8", "an upgrade with a body", STR(POST("Connection: Upgrade\r\nUpgrade: h2c\r\n" LENGTH("3"), "abc")),
     200, 0, "POST /x abc"},
    {"9110 §10.1.1", "100-continue of one that does not wait", STR(POST(LENGTH("3") "Expect: 100-Continue\r\n", "abc")),
     200, 0, "POST /x abc"},
    {"9110 §10.1.1", "100-continue without a body", STR(GET("Expect: 100-continue\r\n")), 200, 0, "GET /x "},
    {"9110 §10.1.1", "an unknown expectation", STR(POST(LENGTH("3") "Expect: magic\r\n", "abc")), 417, 0, NULL},
    {"9110 §15.5.16", "a gzip body", STR(POST(LENGTH("3") "Content-Encoding: gzip\r\n", "abc")), 415, 0, NULL},
    {"9110 §8.4", "an identity body", STR(POST(LENGTH("3") "Content-Encoding: identity\r\n", "abc")), 200, 0,
     "POST /x abc"},
    {"9112 §9.3.2", "a pipeline", STR(GET("") POST(LENGTH("3"), "abc") GET("")), 200, 0, NULL},
};
enum { CASES = sizeof(cases) / sizeof(cases[0]) };

TEST(there_are_enough_cases) {
  CHECK(CASES >= 150);
}

/* ---- split everywhere ---- */

static Str read_in_parts(Arena *arena, Str bytes, size_t first, size_t part) {
  Reader r;
  reader_begin(&r, arena);
  reader_feed(&r, (Str){bytes.p, first});
  for (size_t at = first; at < bytes.n; at += part)
    reader_feed(&r, (Str){bytes.p + at, bytes.n - at < part ? bytes.n - at : part});
  return arena_str(arena, buf_view(&r.out));
}

TEST(a_split_changes_nothing) {
  for (int i = 0; i < CASES; i++) {
    Str bytes = cases[i].bytes;
    SCOPED_ARENA arena = arena_new();
    Str whole = read_in_parts(arena, bytes, bytes.n, 1);
    bool same = str_eq(read_in_parts(arena, bytes, 0, 1), whole);
    for (size_t at = 1; same && at<bytes.n; at += bytes.n> 2000 ? 97 : 1) {
      SCOPED_ARENA inner = arena_new();
      same = str_eq(read_in_parts(inner, bytes, at, bytes.n), whole);
    }
    if (!CHECK(same))
      printf("# %s\n", cases[i].name);
  }
}

/* ---- by the server ---- */

#define NEXT "GET /next HTTP/1.1\r\n" HOST "\r\n"

static bool is_as_demanded(const struct Case *c, const Responses *got) {
  bool accepted = c->status == 200, goes_on = accepted && !c->closed;
  int last = got->count - 1;
  if (last < (goes_on ? 1 : 0) || (!goes_on && last > 0) || got->status[0] != c->status)
    return false;
  if (goes_on && !str_starts(got->body[last], STR("GET /next ")))
    return false;
  if (!accepted)
    return got->is_problem[0] && got->says_close[0];
  return !c->echo || str_eq(got->body[0], str_from(c->echo));
}

static void run_cases(const Server *server, size_t part) {
  for (int i = 0; i < CASES; i++) {
    SCOPED_ARENA arena = arena_new();
    Buf bytes = {.arena = arena};
    buf_str(&bytes, cases[i].bytes);
    buf_cstr(&bytes, NEXT);
    Responses got = exchange(arena, server, buf_view(&bytes), bytes.n > 2000 && part == 1 ? 50 : part);
    if (!CHECK(is_as_demanded(&cases[i], &got)))
      printf("# RFC %s, %s: %d responses, the first is %d, demanded is %d: %.*s\n", cases[i].paragraph, cases[i].name,
             got.count, got.count ? got.status[0] : 0, cases[i].status, STR_FMT(got.body[0]));
  }
}

TEST(each_case_by_the_server) {
  Server server;
  server_start(&server, (HttpServerConfig){0});
  run_cases(&server, SIZE_MAX);
  run_cases(&server, 1);
  CHECK_INT(server_stop(&server, SIGTERM), 0);
}
