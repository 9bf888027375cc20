"""The server of a built site: its files, its own page for what is missing, and nothing outside it."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairspec_bench.schemas.base import FairspecError
from fairspec_bench.site.serve import serve


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    site = tmp_path / "site"
    (site / "sub").mkdir(parents=True)
    (site / "index.html").write_text("first page")
    (site / "404.html").write_text("own page for what is missing")
    (site / "sub" / "page.html").write_text("sub page")
    (tmp_path / "secret.txt").write_text("secret")
    (site / "link.txt").symlink_to(tmp_path / "secret.txt")
    with serve(site, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/", 200, "first page"),
        ("/sub/page.html", 200, "sub page"),
        ("/sub/", 404, "own page"),
        ("/none.html", 404, "own page"),
        ("/../secret.txt", 404, "own page"),
        ("/%2e%2e/secret.txt", 404, "own page"),
        ("/link.txt", 404, "own page"),
    ],
)
def test_only_the_site_is_served(path: str, status: int, text: str, port: int) -> None:
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    asking.request("GET", path)
    answer = asking.getresponse()
    assert (answer.status, text in answer.read().decode()) == (status, True)


def test_it_listens_to_this_machine_alone(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("x")
    with serve(tmp_path, 0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_no_site_and_no_port_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(FairspecError, match="no site there"):
        serve(tmp_path, 0)
    (tmp_path / "index.html").write_text("x")
    with pytest.raises(FairspecError, match="Choose another --port"):
        serve(tmp_path, 99_999)
