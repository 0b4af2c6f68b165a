"""Checks of responses."""

import uuid

ROLLED_BACK = "Failed to create order. Rollback all successful steps"


def media_type(answer):
    return answer.headers.get("content-type", "").split(";")[0].strip()


def ok(answer):
    """The body of a 200."""
    assert answer.status == 200, answer
    assert media_type(answer) == "application/json", answer
    return answer.json


def done(answer):
    """The {"status": …} of a 200."""
    body = ok(answer)
    assert list(body) == ["status"] and isinstance(body["status"], bool), answer
    return body["status"]


def problem(answer, status, pointer=None):
    """The body of a problem (RFC 9457) with this status and, for an invalid field, exactly this JSON pointer."""
    assert answer.status == status, answer
    assert media_type(answer) == "application/problem+json", answer
    body = answer.json
    assert body["type"] and body["title"], answer
    assert body["status"] == (ROLLED_BACK if status == 424 else status), answer
    if pointer is not None:
        assert body.get("pointer") == pointer, answer
        assert body["detail"], answer
    return body


def refused(answer):
    """A refusal by the shop's rules: 409, or 422 for an invalid field."""
    assert answer.status in (409, 422), answer
    return problem(answer, answer.status)


def is_uuid(text):
    return str(uuid.UUID(text)) == text


def next_page(answer):
    """The address of the next page (RFC 8288), or None."""
    link = answer.headers.get("link")
    if link is None:
        return None
    address, relation = link.split(";")
    assert relation.strip() == 'rel="next"', answer
    assert address.startswith("<") and address.endswith(">"), answer
    return address[1:-1]


def pages(shop, path):
    """All elements of all pages."""
    found = []
    while path:
        answer = shop.get(path)
        found += ok(answer)
        path = next_page(answer)
    return found
