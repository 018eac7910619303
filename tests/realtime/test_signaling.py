"""HTTP: who may ask, what is refused and how, the headers, and 3,000 spoilt offers."""

import asyncio
import json
import random
import socket

import aiohttp
import pytest
from offer_mutations import CHROMIUM, WITH_AUDIO, mutate
from peers import back_to, config, held, served, settled

from realtime.errors import RealtimeError, SignalingError
from realtime.signaling import OfferRequest, bind, host_allowed, origin_allowed


def is_refusal(status: int, body: dict) -> bool:
    """A stable code and one sentence."""
    assert body.keys() == {"error", "message"}, body
    assert len(body["message"]) > 15 and body["message"].endswith("."), body
    assert body["error"].replace("_", "").isalpha()
    return 400 <= status < 500 or status == 503


# ---- who may ask


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        ("127.0.0.1:8080", True),
        ("localhost:8080", True),
        ("LOCALHOST", True),
        ("[::1]:8080", True),
        ("192.168.1.7:8080", True),
        ("stage.example:8080", True),  # the name it was bound to
        ("evil.example:8080", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("[", False),
        ("a:b@127.0.0.1.evil.example", False),
    ],
)
def test_only_addresses_and_our_own_names_are_served(header: str, allowed: bool) -> None:
    assert host_allowed(header, "stage.example") is allowed


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://127.0.0.1:8080", True),
        ("https://127.0.0.1:8080", True),
        ("http://127.0.0.1:9090", False),
        ("http://evil.example", False),
        ("null", False),
        ("file://127.0.0.1:8080", False),
        ("http://[", False),
    ],
)
def test_only_our_own_page_may_change_things(origin: str | None, allowed: bool) -> None:
    assert origin_allowed(origin, "127.0.0.1:8080") is allowed


async def test_a_rebound_name_is_refused_everywhere() -> None:
    async with served() as s:
        for path in ("", "livez", "stats", "schema", "thumbnails/testcard/1.jpg"):
            async with s.http.get(s.url + path, headers={"Host": "evil.example"}) as response:
                assert response.status == 403
                body = await response.json()
                assert body["error"] == "foreign_host" and is_refusal(403, body)


async def test_another_sites_page_is_refused() -> None:
    async with served() as s:
        headers = {"Origin": "http://evil.example"}
        async with s.http.post(s.url + "offer", json={}, headers=headers) as response:
            assert response.status == 403
            assert (await response.json())["error"] == "foreign_origin"
        async with s.http.delete(s.url + "sessions/a/viewers/b", headers=headers) as response:
            assert response.status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_another_sites_page_cannot_make_the_server_draw_or_tell(site: str) -> None:
    async with served() as s:
        headers = {"Sec-Fetch-Site": site}
        for path in ("thumbnails/testcard/1.jpg", "stats", "schema", "livez", "client.js", "x"):
            async with s.http.get(s.url + path, headers=headers) as response:
                body = await response.json()
                assert response.status == 403 and body["error"] == "foreign_site", path
                assert is_refusal(403, body)
        async with s.http.post(s.url + "offer", json={}, headers=headers) as response:
            assert response.status == 403
        async with s.http.get(s.url, headers=headers) as response:  # a link to the page
            assert response.status == 200
        assert s.server.engine.stats()["thumbnails"] == 0


@pytest.mark.parametrize("site", ["same-origin", "none"])
async def test_our_own_page_and_the_address_bar_are_served(site: str) -> None:
    async with served() as s:
        for path in ("", "client.js", "livez", "thumbnails/testcard/1.jpg"):
            async with s.http.get(s.url + path, headers={"Sec-Fetch-Site": site}) as response:
                assert response.status == 200


async def test_an_address_that_offers_too_often_waits() -> None:
    async with served(config(offers_per_s=0.1, offers_burst=3)) as s:
        for _ in range(3):
            assert (await s.post({"sdp": ""}))[0] == 400
        async with s.http.post(s.url + "offer", json={"sdp": CHROMIUM}) as response:
            body = await response.json()
            assert response.status == 429 and is_refusal(429, body)
            assert body["error"] == "too_many_offers" and "try again in 10 s" in body["message"]
            assert response.headers["Retry-After"] == "10"
        assert not s.server.sessions
        assert (await s.get("livez"))[0] == 200  # only offers are counted


# ---- answers


async def test_every_answer_bears_the_headers() -> None:
    async with served() as s:
        for path in ("", "livez", "stats", "nothing-here", "thumbnails/testcard/1.jpg"):
            async with s.http.get(s.url + path) as response:
                policy = response.headers["Content-Security-Policy"]
                assert "default-src 'self'" in policy and "script-src 'self'" in policy
                assert "unsafe" not in policy and "*" not in policy
                assert "frame-ancestors 'none'" in policy
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert response.headers["Referrer-Policy"] == "no-referrer"
                assert "Access-Control-Allow-Origin" not in response.headers
                assert response.headers["Cache-Control"]


async def test_the_page_and_its_files_are_served_and_cached_by_tag() -> None:
    async with served() as s:
        for path, kind in (("", "text/html"), ("client.js", "text/javascript")):
            async with s.http.get(s.url + path) as response:
                assert response.status == 200 and response.content_type == kind
                tag = response.headers["ETag"]
            async with s.http.get(s.url + path, headers={"If-None-Match": tag}) as response:
                assert response.status == 304
        for path in ("..%2fserver.py", "%2e%2e/server.py", "server.py", "web/index.html"):
            async with s.http.get(s.url + path) as response:
                assert response.status == 404 and is_refusal(404, await response.json())


async def test_livez_stats_and_schema() -> None:
    async with served() as s:
        assert await s.get("livez") == (200, {"status": "ok"})
        status, stats = await s.get("stats")
        assert status == 200 and stats["sessions"] == [] and stats["viewers"] == 0
        assert stats["process"]["tasks"] > 0 and stats["engine"]["backend"] == "cpu"
        status, schema = await s.get("schema")
        assert status == 200 and {"name", "type", "min", "max", "default"} <= schema[0].keys()


async def test_thumbnails() -> None:
    async with served(names=["slow"]) as s:
        async with s.http.get(s.url + "thumbnails/testcard/4294967295.jpg") as response:
            assert response.status == 200 and response.content_type == "image/jpeg"
            assert (await response.read())[:3] == b"\xff\xd8\xff"
            assert "max-age" in response.headers["Cache-Control"]
        for path, status in (
            ("thumbnails/testcard/4294967296.jpg", 400),
            ("thumbnails/nobody/1.jpg", 404),
            ("thumbnails/..%2f..%2fetc/1.jpg", 404),
            ("thumbnails/testcard/-1.jpg", 404),
            ("thumbnails/slow/1.jpg", 409),  # offered, not loaded
        ):
            async with s.http.get(s.url + path) as response:
                assert response.status == status and is_refusal(status, await response.json())
        assert s.server.engine.info("slow") is None


# ---- refusals


async def test_an_offer_must_be_declared_as_json() -> None:
    async with served() as s:
        async with s.http.post(s.url + "offer", data=b'{"sdp": ""}') as response:
            assert response.status == 415 and is_refusal(415, await response.json())


async def test_a_body_that_is_too_large_is_refused() -> None:
    async with served() as s:
        status, body = await s.post({"sdp": "x" * 200_000})
        assert status == 413 and is_refusal(status, body)
        status, body = await s.post({"sdp": CHROMIUM + "a=x\r\n" * 8000})
        assert status == 413 and "the limit is 32768" in body["message"]


async def test_an_unknown_method_or_address_gets_a_sentence() -> None:
    async with served() as s:
        async with s.http.get(s.url + "offer/") as response:
            assert response.status == 404 and is_refusal(404, await response.json())
        async with s.http.put(s.url + "offer", json={}) as response:
            assert response.status == 405 and is_refusal(405, await response.json())
            assert response.headers["Allow"]


async def test_a_slow_body_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime.signaling.BODY_SECONDS", 0.2)

    async def drip():
        yield b'{"sdp": "'
        await asyncio.sleep(1.5)
        yield b'"}'

    async with served() as s:
        headers = {"Content-Type": "application/json"}
        async with s.http.post(s.url + "offer", data=drip(), headers=headers) as response:
            assert response.status == 408 and is_refusal(408, await response.json())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b"null",
        b"{}",
        b'{"sdp": 1}',
        b'{"sdp": null}',
        b'{"sdp": "v=0", "barcode": 1}',
        b'{"sdp": "v=0", "controls": []}',
        b'{"sdp": "v=0", "codec": {}}',
        b'{"sdp": "v=0", "token": "x"}',
        b'{"sdp": "v=0", "session": "../x"}',
        b'{"sdp": ' + b"[" * 100_000,
        b'{"sdp": ' + b"9" * 10_000 + b"}",
        b"\xff\xfe\x00",
        b'{"sdp": "\xff"}',
    ],
)
def test_odd_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(SignalingError) as caught:
        OfferRequest.from_json(body)
    assert is_refusal(
        caught.value.status, {"error": caught.value.code, "message": str(caught.value)}
    )


def test_a_plain_body_is_read() -> None:
    body = {"sdp": "v=0", "type": "offer", "session": None, "codec": "VP8", "barcode": True}
    request = OfferRequest.from_json(json.dumps(body).encode())
    assert request == OfferRequest("v=0", codec="VP8", barcode=True)


async def test_bad_controls_and_codecs_are_refused_before_anything_is_opened() -> None:
    async with served() as s:
        for extra in (
            {"controls": {"psi": 99}},
            {"controls": {"model": "/etc/passwd"}},
            {"controls": {"nonsense": 1}},
            {"codec": "AV1"},
            {"session": "unknown"},
        ):
            status, body = await s.post({"sdp": CHROMIUM, **extra})
            assert is_refusal(status, body), extra
        assert not s.server.sessions and s.server.refused == 5


async def test_an_error_of_ours_is_a_500_without_details(monkeypatch, caplog) -> None:
    async with served() as s:

        def broken() -> dict:
            raise ZeroDivisionError("secret detail")

        monkeypatch.setattr(s.server, "stats", broken)
        status, body = await s.get("stats")
        assert status == 500 and "secret" not in body["message"]
        assert "secret detail" in caplog.text


async def test_a_line_end_in_an_address_forges_no_line_of_the_log(monkeypatch, caplog) -> None:
    async def broken(request: object) -> None:
        raise RealtimeError("it is broken")

    async with served(names=["slow"]) as s:
        monkeypatch.setattr(s.server.engine, "thumbnail", broken)
        monkeypatch.setattr(s.server, "leave", lambda *ids: broken(ids))
        assert await s.delete("secret-id%0aERROR", "x%0aERROR%20forged") == 503
        monkeypatch.setattr("realtime.signaling._check_caller", lambda *_: 1 / 0)
        status, _ = await s.get("nothing%0aERROR%20forged/here")
        assert status == 500
    messages = [record.getMessage() for record in caplog.records]
    assert "DELETE /sessions/{session}/viewers/{viewer}: it is broken" in messages
    assert r"GET '/nothing\nERROR forged/here' failed" in messages
    assert not any("\n" in message or "secret-id" in message for message in messages)


async def test_3000_spoilt_offers_do_no_harm() -> None:
    """Only 200, 4xx and 503; nothing is left behind; the event loop is never held for long."""
    rng = random.Random(11)
    seen: dict[int, int] = {}
    async with served(config(connect_timeout_s=0.1, linger_s=0.0, max_sessions=64)) as s:
        # What is made once: four connections, the executor's threads, caches.
        first = await asyncio.gather(*(s.post({"sdp": WITH_AUDIO}) for _ in range(4)))
        assert [status for status, _ in first] == [200] * 4
        await settled(lambda: not s.server.sessions)
        before = held()

        async def spoil(count: int) -> None:
            for number in range(count):
                text = CHROMIUM if number % 2 else WITH_AUDIO
                for _ in range(1 + 3 * (number % 4)):
                    text = mutate(text, rng)
                status, body = await s.post({"sdp": text, "codec": rng.choice([None, "VP8"])})
                seen[status] = seen.get(status, 0) + 1
                assert status == 200 or is_refusal(status, body), (status, body)

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(spoil(750))
        await settled(lambda: not s.server.sessions)
        await settled(lambda: back_to(before))
        assert s.server.failed == 0
        assert (await s.post({"sdp": CHROMIUM}))[0] == 200  # it still serves
    assert sum(seen.values()) == 3000
    assert seen[200] > 200 and seen[400] > 1000 and seen.get(503, 0) < 500, seen


# ---- listening


async def test_a_taken_port_is_told_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RealtimeError, match=rf"port {port}: .*in use.*another with --port"):
            bind("127.0.0.1", port)
    with pytest.raises(RealtimeError, match="'no such host' is not an address"):
        bind("no such host", 0)


async def test_ipv6_is_served() -> None:
    settings = config(host="::1")
    async with served(settings) as s:
        assert s.url.startswith("http://[::1]:")
        assert (await s.get("livez"))[0] == 200


async def test_malformed_http_does_not_stop_the_server() -> None:
    async with served() as s:
        host, port = "127.0.0.1", aiohttp.client.URL(s.url).port
        for junk in (
            b"\x16\x03\x01\x02\x00",
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST /offer HTTP/1.1\r\n",
        ):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(junk)
            writer.close()
            await writer.wait_closed()
        assert (await s.get("livez"))[0] == 200
